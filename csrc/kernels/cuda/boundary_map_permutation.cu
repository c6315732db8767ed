// boundary's kernels with the permutation map.
#include "hyperstreams/maps/permutation.h"

#include "boundary_map_kernels.h"

namespace hyperstreams::cuda {

HYPERSTREAMS_INSTANTIATE_BOUNDARY(maps::Permutation)

}  // namespace hyperstreams::cuda
