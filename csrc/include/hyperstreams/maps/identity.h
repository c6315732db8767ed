// identity: h_res = I. It has no logits and no h_res is stored.
#pragma once

#include "hyperstreams/maps/scalar.h"
#include "hyperstreams/maps/settings.h"

namespace hyperstreams::maps {

struct Identity {
  static constexpr HYPERSTREAMS_HOST_DEVICE int logit_count(int) { return 0; }
};

}  // namespace hyperstreams::maps
