// Which function computes a map.
#include "map_functions.h"

#include "hyperstreams/maps/circulant.h"
#include "hyperstreams/maps/free.h"
#include "hyperstreams/maps/kronecker.h"
#include "hyperstreams/maps/permutation.h"
#include "hyperstreams/maps/sinkhorn.h"
#include "hyperstreams/maps/spectral.h"

namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE {
namespace {

template <class T>
void find(const MapSettings& settings, int n, MapKind map, MapFunctions<T>* functions) {
  switch (map) {
    case MapKind::kIdentity:
      *functions = {};
      break;
    case MapKind::kFree:
      *functions = {};
      functions->copies = true;
      break;
    case MapKind::kSinkhorn:
      find_functions<maps::Sinkhorn>(settings, n, functions);
      break;
    case MapKind::kPermutation:
      find_functions<maps::Permutation>(settings, n, functions);
      break;
    case MapKind::kKronecker:
      find_functions<maps::Kronecker>(settings, n, functions);
      break;
    case MapKind::kSpectral:
      find_functions<maps::Spectral>(settings, n, functions);
      break;
    case MapKind::kCirculant:
      find_functions<maps::Circulant>(settings, n, functions);
      break;
  }
}

}  // namespace

void find_map(const MapSettings& settings, int n, MapKind map, MapFunctions<float>* functions) {
  find(settings, n, map, functions);
}

void find_map(const MapSettings& settings, int n, MapKind map, MapFunctions<double>* functions) {
  find(settings, n, map, functions);
}

}  // namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE
