// The spectral map on lanes.
#include "hyperstreams/maps/spectral.h"

#include "map_functions.h"
#include "simd_math.h"

namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE {
namespace {

template <class T>
void find(const MapSettings& settings, int n, MapFunctions<T>* functions) {
  switch (n) {
    case 1:
      *functions = make_map_functions<maps::Spectral, 1, T>(settings, n);
      break;
    case 2:
      *functions = make_map_functions<maps::Spectral, 2, T>(settings, n);
      break;
    case 3:
      *functions = make_map_functions<maps::Spectral, 3, T>(settings, n);
      break;
    case 4:
      *functions = make_map_functions<maps::Spectral, 4, T>(settings, n);
      break;
  }
}

}  // namespace

void find_spectral(const MapSettings& settings, int n, MapFunctions<float>* functions) {
  find(settings, n, functions);
}

void find_spectral(const MapSettings& settings, int n, MapFunctions<double>* functions) {
  find(settings, n, functions);
}

}  // namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE
