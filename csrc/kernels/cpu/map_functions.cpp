// Which function computes a map.
#include "map_functions.h"

#include "hyperstreams/coefficients.h"
#include "hyperstreams/maps/circulant.h"
#include "hyperstreams/maps/free.h"
#include "hyperstreams/maps/identity.h"
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

#ifdef HYPERSTREAMS_ISA_IS_BASE
namespace hyperstreams {

int mix_logit_count(MapKind map, const MapSettings& settings, int n_streams) {
  if (n_streams < 1 || n_streams > kMaxStreams) return -1;
  switch (map) {
    case MapKind::kIdentity:
      return maps::Identity::logit_count(n_streams);
    case MapKind::kFree:
      return maps::Free::logit_count(n_streams);
    case MapKind::kSinkhorn:
      return maps::Sinkhorn::logit_count(n_streams);
    case MapKind::kPermutation:
      return n_streams <= maps::kMaxPermutationStreams ? maps::Permutation::logit_count(n_streams)
                                                       : -1;
    case MapKind::kKronecker:
      return maps::Kronecker::logit_count(settings, n_streams);
    case MapKind::kSpectral:
      return n_streams <= maps::kMaxSpectralStreams ? maps::Spectral::logit_count(n_streams) : -1;
    case MapKind::kCirculant:
      return maps::Circulant::logit_count(n_streams);
  }
  return -1;
}

}  // namespace hyperstreams
#endif
