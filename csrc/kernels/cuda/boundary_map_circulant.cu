// boundary's kernels with the circulant map.
#include "hyperstreams/maps/circulant.h"

#include "boundary_map_kernels.h"

namespace hyperstreams::cuda {

HYPERSTREAMS_INSTANTIATE_BOUNDARY(maps::Circulant)

}  // namespace hyperstreams::cuda
