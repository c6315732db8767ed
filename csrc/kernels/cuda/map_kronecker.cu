// coefficients with the kronecker map.
#include "hyperstreams/maps/kronecker.h"

#include "coefficient_kernels.h"

namespace hyperstreams::cuda {

HYPERSTREAMS_INSTANTIATE_MAP(maps::Kronecker)

}  // namespace hyperstreams::cuda
