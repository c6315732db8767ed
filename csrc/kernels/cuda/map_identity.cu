// coefficients with the identity map.
#include "hyperstreams/maps/identity.h"

#include "coefficient_kernels.h"

namespace hyperstreams::cuda {

HYPERSTREAMS_INSTANTIATE_MAP(maps::Identity)

}  // namespace hyperstreams::cuda
