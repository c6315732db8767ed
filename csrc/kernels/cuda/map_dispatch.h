// From the kind of a map to its type.
#pragma once

#include "device/device.h"
#include "hyperstreams/maps/circulant.h"
#include "hyperstreams/maps/free.h"
#include "hyperstreams/maps/identity.h"
#include "hyperstreams/maps/kronecker.h"
#include "hyperstreams/maps/permutation.h"
#include "hyperstreams/maps/settings.h"
#include "hyperstreams/maps/sinkhorn.h"
#include "hyperstreams/maps/spectral.h"

namespace hyperstreams::cuda {

template <class Map>
struct MapTag {
  using type = Map;
};

/// Calls f(MapTag<map>{}) and returns its status.
template <class F>
Status dispatch_map(MapKind map, const F& f) {
  switch (map) {
    case MapKind::kFree:
      return f(MapTag<maps::Free>{});
    case MapKind::kSinkhorn:
      return f(MapTag<maps::Sinkhorn>{});
    case MapKind::kPermutation:
      return f(MapTag<maps::Permutation>{});
    case MapKind::kKronecker:
      return f(MapTag<maps::Kronecker>{});
    case MapKind::kSpectral:
      return f(MapTag<maps::Spectral>{});
    case MapKind::kCirculant:
      return f(MapTag<maps::Circulant>{});
    case MapKind::kIdentity:
      break;
  }
  return f(MapTag<maps::Identity>{});
}

}  // namespace hyperstreams::cuda
