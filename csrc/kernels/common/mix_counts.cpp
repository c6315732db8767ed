// Sizes that depend on the map of coefficients, for both back ends.
#include "hyperstreams/coefficients.h"
#include "hyperstreams/maps/circulant.h"
#include "hyperstreams/maps/free.h"
#include "hyperstreams/maps/identity.h"
#include "hyperstreams/maps/kronecker.h"
#include "hyperstreams/maps/permutation.h"
#include "hyperstreams/maps/sinkhorn.h"
#include "hyperstreams/maps/spectral.h"

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

int64_t mix_scratch_size(MapKind map, const MapSettings& settings, int n_streams) {
  switch (map) {
    case MapKind::kSinkhorn:
      return maps::Sinkhorn::scratch_size(settings, n_streams);
    case MapKind::kKronecker:
      return maps::Kronecker::scratch_size(settings, n_streams);
    default:
      return 0;
  }
}

}  // namespace hyperstreams
