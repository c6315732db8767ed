// coefficients with the circulant map.
#include "hyperstreams/maps/circulant.h"

#include "coefficient_kernels.h"

namespace hyperstreams::cuda {

HYPERSTREAMS_INSTANTIATE_MAP(maps::Circulant)

}  // namespace hyperstreams::cuda
