// The spectral map on lanes.
#include "hyperstreams/maps/spectral.h"

#include "map_dispatch.h"
#include "simd_math.h"

namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE {

HYPERSTREAMS_INSTANTIATE_MAP(maps::Spectral)

}  // namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE
