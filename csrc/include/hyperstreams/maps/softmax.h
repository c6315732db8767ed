// Softmax over a token's logits, in two parts that callers combine with their own sums.
#pragma once

#include "hyperstreams/maps/scalar.h"

namespace hyperstreams::maps {

/// step(count - 1, ... step(0, start)), the steps dealt to four chains, each from `start`, which
/// join(a, b) brings together: a chain is shorter to wait for, and its sum is rounded less often.
template <class V, class Step, class Join>
HYPERSTREAMS_HOST_DEVICE V in_chains(int count, V start, const Step& step, const Join& join) {
  V a = start, b = start, c = start, d = start;
  int k = 0;
  for (; k + 4 <= count; k += 4) {
    a = step(k, a);
    b = step(k + 1, b);
    c = step(k + 2, c);
    d = step(k + 3, d);
  }
  for (; k < count; ++k) a = step(k, a);
  return join(join(a, b), join(c, d));
}

/// weight[k] = exp(logits[k] - the largest), for count >= 1. Returns 1 / sum of weights: their
/// products are softmax(logits).
template <class V, class In, class Array>
HYPERSTREAMS_HOST_DEVICE V softmax_weights(In logits, int count, Array weight) {
  const V largest = in_chains(
      count, V(logits[0]), [&](int k, V top) { return max(top, logits[k]); },
      [](V a, V b) { return max(a, b); });
  exp_below(logits, largest, count, weight);
  const V sum = in_chains(
      count, Lane<V>::set(0), [&](int k, V total) { return total + weight[k]; },
      [](V a, V b) { return a + b; });
  return Lane<V>::set(1) / sum;
}

}  // namespace hyperstreams::maps
