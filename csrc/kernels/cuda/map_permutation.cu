// coefficients with the permutation map.
#include "hyperstreams/maps/permutation.h"

#include "coefficient_kernels.h"

namespace hyperstreams::cuda {

HYPERSTREAMS_INSTANTIATE_MAP(maps::Permutation)

}  // namespace hyperstreams::cuda
