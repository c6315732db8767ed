// find_functions for one map: the run-time n becomes a constant. Included by map_<name>.cpp alone,
// so that each map is compiled once.
#pragma once

#include "map_functions.h"

namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE {

/// Every n of a map that exists for n <= kMax only.
template <class Map, int kMax, class T>
void find_static(const MapSettings& settings, int n, MapFunctions<T>* functions) {
  if (n == kMax) {
    *functions = make_map_functions<Map, kMax, T>(settings, n);
  } else if constexpr (kMax > 1) {
    find_static<Map, kMax - 1>(settings, n, functions);
  }
}

template <class Map, class T>
void find_functions(const MapSettings& settings, int n, MapFunctions<T>* functions) {
  if constexpr (Map::kMaxStaticStreams > 0) {
    find_static<Map, Map::kMaxStaticStreams>(settings, n, functions);
  } else {
    dispatch_streams<T>(n, [&](auto streams) {
      *functions = make_map_functions<Map, decltype(streams)::value, T>(settings, n);
    });
  }
}

#define HYPERSTREAMS_INSTANTIATE_MAP(Map)                                           \
  template void find_functions<Map>(const MapSettings&, int, MapFunctions<float>*); \
  template void find_functions<Map>(const MapSettings&, int, MapFunctions<double>*);

}  // namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE
