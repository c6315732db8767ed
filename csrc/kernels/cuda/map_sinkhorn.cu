// coefficients with the sinkhorn map.
#include "hyperstreams/maps/sinkhorn.h"

#include "coefficient_kernels.h"

namespace hyperstreams::cuda {

HYPERSTREAMS_INSTANTIATE_MAP(maps::Sinkhorn)

}  // namespace hyperstreams::cuda
