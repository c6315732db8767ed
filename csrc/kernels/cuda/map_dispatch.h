// From the kind of a map to its type.
#pragma once

#include "device/device.h"
#include "dispatch.h"
#include "hyperstreams/maps/circulant.h"
#include "hyperstreams/maps/free.h"
#include "hyperstreams/maps/identity.h"
#include "hyperstreams/maps/kronecker.h"
#include "hyperstreams/maps/permutation.h"
#include "hyperstreams/maps/settings.h"
#include "hyperstreams/maps/sinkhorn.h"
#include "hyperstreams/maps/spectral.h"

namespace hyperstreams::cuda {

/// Calls f(TypeTag<map>{}) and returns its status.
template <class F>
Status dispatch_map(MapKind map, const F& f) {
  switch (map) {
    case MapKind::kFree:
      return f(TypeTag<maps::Free>{});
    case MapKind::kSinkhorn:
      return f(TypeTag<maps::Sinkhorn>{});
    case MapKind::kPermutation:
      return f(TypeTag<maps::Permutation>{});
    case MapKind::kKronecker:
      return f(TypeTag<maps::Kronecker>{});
    case MapKind::kSpectral:
      return f(TypeTag<maps::Spectral>{});
    case MapKind::kCirculant:
      return f(TypeTag<maps::Circulant>{});
    case MapKind::kIdentity:
      break;
  }
  return f(TypeTag<maps::Identity>{});
}

}  // namespace hyperstreams::cuda
