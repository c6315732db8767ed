// boundary's kernels with the sinkhorn map.
#include "hyperstreams/maps/sinkhorn.h"

#include "boundary_map_kernels.h"

namespace hyperstreams::cuda {

HYPERSTREAMS_INSTANTIATE_BOUNDARY(maps::Sinkhorn)

}  // namespace hyperstreams::cuda
