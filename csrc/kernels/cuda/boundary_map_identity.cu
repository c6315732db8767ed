// boundary's kernels with the identity map.
#include "hyperstreams/maps/identity.h"

#include "boundary_map_kernels.h"

namespace hyperstreams::cuda {

HYPERSTREAMS_INSTANTIATE_BOUNDARY(maps::Identity)

}  // namespace hyperstreams::cuda
