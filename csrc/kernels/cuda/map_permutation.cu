// coefficients with the permutation map, one token per thread.
#include "hyperstreams/maps/permutation.h"

#include "coefficient_kernels.h"

namespace hyperstreams::cuda {

HYPERSTREAMS_INSTANTIATE_MAP(maps::Permutation)

}  // namespace hyperstreams::cuda
