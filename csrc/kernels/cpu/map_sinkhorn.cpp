// The sinkhorn map on lanes.
#include "hyperstreams/maps/sinkhorn.h"

#include "map_dispatch.h"
#include "simd_math.h"

namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE {

HYPERSTREAMS_INSTANTIATE_MAP(maps::Sinkhorn)

}  // namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE
