// free: h_res[j, i] = logit[j n + i] (Hyper-Connections, 2409.19606).
#pragma once

#include "hyperstreams/maps/arrays.h"
#include "hyperstreams/maps/scalar.h"
#include "hyperstreams/maps/settings.h"

namespace hyperstreams::maps {

struct Free {
  static constexpr HYPERSTREAMS_HOST_DEVICE int logit_count(int n) { return n * n; }
  static constexpr HYPERSTREAMS_HOST_DEVICE MapSpace forward_space(const MapSettings&, int) {
    return {0, 0};
  }
  static constexpr HYPERSTREAMS_HOST_DEVICE MapSpace backward_space(const MapSettings&, int) {
    return {0, 0};
  }

  template <int kN, class V, class In, class Out, class Scratch>
  static HYPERSTREAMS_HOST_DEVICE void forward(const MapSettings&, int n_streams, In logits,
                                               Out h_res, Scratch) {
    const int n = kN ? kN : n_streams;
    for (int k = 0; k < n * n; ++k) h_res[k] = logits[k];
  }

  template <int kN, class V, class In, class Grad, class Out, class Scratch>
  static HYPERSTREAMS_HOST_DEVICE void backward(const MapSettings&, int n_streams, In,
                                                Grad grad_h_res, Out grad_logits, Scratch) {
    const int n = kN ? kN : n_streams;
    for (int k = 0; k < n * n; ++k) grad_logits[k] = grad_h_res[k];
  }
};

}  // namespace hyperstreams::maps
