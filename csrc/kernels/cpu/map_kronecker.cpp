// The kronecker map on lanes.
#include "hyperstreams/maps/kronecker.h"

#include "map_functions.h"
#include "simd_math.h"

namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE {
namespace {

template <class T>
void find(const MapSettings& settings, int n, MapFunctions<T>* functions) {
  dispatch_streams<T>(n, [&](auto streams) {
    *functions = make_map_functions<maps::Kronecker, decltype(streams)::value, T>(settings, n);
  });
}

}  // namespace

void find_kronecker(const MapSettings& settings, int n, MapFunctions<float>* functions) {
  find(settings, n, functions);
}

void find_kronecker(const MapSettings& settings, int n, MapFunctions<double>* functions) {
  find(settings, n, functions);
}

}  // namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE
