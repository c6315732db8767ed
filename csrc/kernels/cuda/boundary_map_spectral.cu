// boundary's kernels with the spectral map.
#include "hyperstreams/maps/spectral.h"

#include "boundary_map_kernels.h"

namespace hyperstreams::cuda {

HYPERSTREAMS_INSTANTIATE_BOUNDARY(maps::Spectral)

}  // namespace hyperstreams::cuda
