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

namespace {

/// Calls f(Map{}) for the map of this kind; the identity needs nothing.
template <class F>
MapSpace space_of(MapKind map, int n_streams, const F& f) {
  MapSpace space = {0, 0};
  switch (map) {
    case MapKind::kIdentity:
      break;
    case MapKind::kFree:
      space = f(maps::Free{});
      break;
    case MapKind::kSinkhorn:
      space = f(maps::Sinkhorn{});
      break;
    case MapKind::kPermutation:
      space = f(maps::Permutation{});
      break;
    case MapKind::kKronecker:
      // Where n is a constant up to 5, it keeps nothing.
      if (n_streams > maps::kMaxRegisterStreams) space = f(maps::Kronecker{});
      break;
    case MapKind::kSpectral:
      space = f(maps::Spectral{});
      break;
    case MapKind::kCirculant:
      space = f(maps::Circulant{});
      break;
  }
  if (n_streams <= maps::kMaxRegisterStreams) space.arrays = 0;
  return space;
}

}  // namespace

MapSpace mix_forward_space(MapKind map, const MapSettings& settings, int n_streams) {
  return space_of(map, n_streams,
                  [&](auto m) { return decltype(m)::forward_space(settings, n_streams); });
}

MapSpace mix_backward_space(MapKind map, const MapSettings& settings, int n_streams) {
  return space_of(map, n_streams,
                  [&](auto m) { return decltype(m)::backward_space(settings, n_streams); });
}

}  // namespace hyperstreams
