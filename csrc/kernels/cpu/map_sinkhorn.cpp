// The sinkhorn map on lanes.
#include "hyperstreams/maps/sinkhorn.h"

#include "map_functions.h"
#include "simd_math.h"

namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE {

void find_sinkhorn(const MapSettings& settings, int n, MapFunctions<float>* functions) {
#ifdef HYPERSTREAMS_ISA_IS_BASE
  // Lanes are arrays in memory here, whatever is known about n.
  *functions = make_map_functions<maps::Sinkhorn, 0, float>(settings, n);
#else
  dispatch_streams(n, [&](auto streams) {
    *functions = make_map_functions<maps::Sinkhorn, decltype(streams)::value, float>(settings, n);
  });
#endif
}

// double serves gradient checks: the run-time n is fast enough, and quicker to compile.
void find_sinkhorn(const MapSettings& settings, int n, MapFunctions<double>* functions) {
  *functions = make_map_functions<maps::Sinkhorn, 0, double>(settings, n);
}

}  // namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE
