// Softmax over a token's logits, in two parts that callers combine with their own sums.
#pragma once

#include "hyperstreams/maps/scalar.h"

namespace hyperstreams::maps {

/// weight[k] = exp(logits[k] - the largest), for count >= 1. Returns 1 / sum of weights: their
/// products are softmax(logits).
template <class V, class In>
HYPERSTREAMS_HOST_DEVICE V softmax_weights(In logits, int count, V* weight) {
  V largest = logits[0];
  for (int k = 1; k < count; ++k) largest = max(largest, logits[k]);
  exp_below(logits, largest, count, weight);
  V sum = weight[0];
  for (int k = 1; k < count; ++k) sum = sum + weight[k];
  return Lane<V>::set(1) / sum;
}

}  // namespace hyperstreams::maps
