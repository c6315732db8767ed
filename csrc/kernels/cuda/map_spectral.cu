// coefficients with the spectral map.
#include "hyperstreams/maps/spectral.h"

#include "coefficient_kernels.h"

namespace hyperstreams::cuda {

HYPERSTREAMS_INSTANTIATE_MAP(maps::Spectral)

}  // namespace hyperstreams::cuda
