// Which function computes a map.
#include "map_functions.h"

#include "hyperstreams/coefficients.h"
#include "hyperstreams/maps/free.h"
#include "hyperstreams/maps/identity.h"
#include "hyperstreams/maps/permutation.h"
#include "hyperstreams/maps/sinkhorn.h"

namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE {
namespace {

template <class T>
void find(const MapSettings& settings, int n, MapKind map, MapFunctions<T>* functions) {
  switch (map) {
    case MapKind::kIdentity:
      *functions = {};
      break;
    case MapKind::kFree:
      *functions = make_map_functions<maps::Free, 0, T>(settings, n);
      break;
    case MapKind::kSinkhorn:
      find_sinkhorn(settings, n, functions);
      break;
    case MapKind::kPermutation:
      find_permutation(settings, n, functions);
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

int mix_logit_count(MapKind map, int n_streams) {
  const bool exists = n_streams >= 1 && n_streams <= kMaxStreams;
  switch (map) {
    case MapKind::kIdentity:
      return exists ? maps::Identity::logit_count(n_streams) : -1;
    case MapKind::kFree:
      return exists ? maps::Free::logit_count(n_streams) : -1;
    case MapKind::kSinkhorn:
      return exists ? maps::Sinkhorn::logit_count(n_streams) : -1;
    case MapKind::kPermutation:
      return exists && n_streams <= maps::kMaxPermutationStreams
                 ? maps::Permutation::logit_count(n_streams)
                 : -1;
  }
  return -1;
}

}  // namespace hyperstreams
#endif
