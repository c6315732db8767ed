// circulant: h_res = sum_k c_k Pi^k with Pi the cyclic shift of streams (C-mHC).
//
// c = (1 - gamma) e_0 + gamma softmax(logits) and Pi[r, r + 1 mod n] = 1: M[r, c] is the
// coefficient c - r mod n. Integer settings: [source_rows], 1 when h_res is M transposed; floats:
// [gamma].
#pragma once

#include "hyperstreams/maps/arrays.h"
#include "hyperstreams/maps/scalar.h"
#include "hyperstreams/maps/settings.h"
#include "hyperstreams/maps/softmax.h"

namespace hyperstreams::maps {

struct Circulant {
  /// Exists for n up to this, each compiled by itself; 0: for every n.
  static constexpr int kMaxStaticStreams = 0;

  static constexpr HYPERSTREAMS_HOST_DEVICE int logit_count(int n) { return n; }
  static constexpr HYPERSTREAMS_HOST_DEVICE MapSpace forward_space(const MapSettings&, int n) {
    return {0, n};
  }
  static constexpr HYPERSTREAMS_HOST_DEVICE MapSpace backward_space(const MapSettings&, int n) {
    return {0, 2 * n};
  }

  /// Where h_res holds coefficient k in row r of M.
  static HYPERSTREAMS_HOST_DEVICE int place(bool transposed, int n, int r, int k) {
    const int c = r + k < n ? r + k : r + k - n;
    return transposed ? c * n + r : r * n + c;
  }

  template <int kN, class V, class In, class Out, class Scratch>
  static HYPERSTREAMS_HOST_DEVICE void forward(const MapSettings& settings, int n_streams,
                                               In logits, Out h_res, Scratch scratch) {
    const int n = kN ? kN : n_streams;
    const bool transposed = settings.ints[0] != 0;
    Arrays<V, Scratch> arrays(scratch);
    auto weight = arrays.template take<kN ? kN : kMaxStreams>(n);
    const V scale = Lane<V>::set(settings.floats[0]) * softmax_weights<V>(logits, n, weight.view());
    for (int k = 0; k < n; ++k) {
      const V rest = Lane<V>::set(k == 0 ? 1 - settings.floats[0] : 0);
      const V coefficient = fma(scale, weight[k], rest);
      for (int r = 0; r < n; ++r) h_res[place(transposed, n, r, k)] = coefficient;
    }
  }

  template <int kN, class V, class In, class Grad, class Out, class Scratch>
  static HYPERSTREAMS_HOST_DEVICE void backward(const MapSettings& settings, int n_streams,
                                                In logits, Grad grad_h_res, Out grad_logits,
                                                Scratch scratch) {
    constexpr int size = kN ? kN : kMaxStreams;
    const int n = kN ? kN : n_streams;
    const bool transposed = settings.ints[0] != 0;
    Arrays<V, Scratch> arrays(scratch);
    auto weight = arrays.template take<size>(n), grad = arrays.template take<size>(n);
    const V scale = softmax_weights<V>(logits, n, weight.view());
    const V gamma_scale = Lane<V>::set(settings.floats[0]) * scale;
    V mean = Lane<V>::set(0);
    for (int k = 0; k < n; ++k) {
      V sum = grad_h_res[place(transposed, n, 0, k)];
      for (int r = 1; r < n; ++r) sum = sum + grad_h_res[place(transposed, n, r, k)];
      grad[k] = sum;
      mean = fma(weight[k], sum, mean);
    }
    mean = mean * scale;
    for (int k = 0; k < n; ++k) grad_logits[k] = weight[k] * gamma_scale * (grad[k] - mean);
  }
};

}  // namespace hyperstreams::maps
