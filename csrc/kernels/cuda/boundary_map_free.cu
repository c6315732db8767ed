// boundary's kernels with the free map.
#include "hyperstreams/maps/free.h"

#include "boundary_map_kernels.h"

namespace hyperstreams::cuda {

HYPERSTREAMS_INSTANTIATE_BOUNDARY(maps::Free)

}  // namespace hyperstreams::cuda
