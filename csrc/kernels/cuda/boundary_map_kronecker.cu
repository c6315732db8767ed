// boundary's kernels with the kronecker map.
#include "hyperstreams/maps/kronecker.h"

#include "boundary_map_kernels.h"

namespace hyperstreams::cuda {

HYPERSTREAMS_INSTANTIATE_BOUNDARY(maps::Kronecker)

}  // namespace hyperstreams::cuda
