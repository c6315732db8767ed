// coefficients with the free map.
#include "hyperstreams/maps/free.h"

#include "coefficient_kernels.h"

namespace hyperstreams::cuda {

HYPERSTREAMS_INSTANTIATE_MAP(maps::Free)

}  // namespace hyperstreams::cuda
