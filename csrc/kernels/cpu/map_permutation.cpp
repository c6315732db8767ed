// The permutation map on lanes.
#include "hyperstreams/maps/permutation.h"

#include "map_dispatch.h"
#include "simd_math.h"

namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE {

HYPERSTREAMS_INSTANTIATE_MAP(maps::Permutation)

}  // namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE
