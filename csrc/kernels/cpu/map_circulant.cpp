// The circulant map on lanes.
#include "hyperstreams/maps/circulant.h"

#include "map_dispatch.h"
#include "simd_math.h"

namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE {

HYPERSTREAMS_INSTANTIATE_MAP(maps::Circulant)

}  // namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE
