// The kronecker map on lanes.
#include "hyperstreams/maps/kronecker.h"

#include "map_dispatch.h"
#include "simd_math.h"

namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE {

HYPERSTREAMS_INSTANTIATE_MAP(maps::Kronecker)

}  // namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE
