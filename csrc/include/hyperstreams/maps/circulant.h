// circulant: h_res = sum_k c_k Pi^k with Pi the cyclic shift of streams (C-mHC).
//
// c = (1 - gamma) e_0 + gamma softmax(logits) and Pi[r, r + 1 mod n] = 1: M[r, c] is the
// coefficient c - r mod n. Integer settings: [source_rows], 1 when h_res is M transposed; floats:
// [gamma].
#pragma once

#include "hyperstreams/maps/scalar.h"
#include "hyperstreams/maps/settings.h"

namespace hyperstreams::maps {

struct Circulant {
  /// Exists for n up to this, each compiled by itself; 0: for every n.
  static constexpr int kMaxStaticStreams = 0;

  static constexpr HYPERSTREAMS_HOST_DEVICE int logit_count(int n) { return n; }
  static constexpr HYPERSTREAMS_HOST_DEVICE int scratch_size(const MapSettings&, int) { return 0; }

  /// weight[k] = softmax(logits)_k.
  template <class V, class In>
  static HYPERSTREAMS_HOST_DEVICE void softmax(int n, In logits, V* weight) {
    V largest = logits[0];
    for (int k = 1; k < n; ++k) largest = max(largest, logits[k]);
    for (int k = 0; k < n; ++k) weight[k] = logits[k] - largest;
    exp_each(weight, n);
    V sum = weight[0];
    for (int k = 1; k < n; ++k) sum = sum + weight[k];
    const V scale = Lane<V>::set(1) / sum;
    for (int k = 0; k < n; ++k) weight[k] = weight[k] * scale;
  }

  /// Where h_res holds coefficient k in row r of M.
  static HYPERSTREAMS_HOST_DEVICE int place(bool transposed, int n, int r, int k) {
    const int c = r + k < n ? r + k : r + k - n;
    return transposed ? c * n + r : r * n + c;
  }

  template <int kN, class V, class In, class Out, class Scratch>
  static HYPERSTREAMS_HOST_DEVICE void forward(const MapSettings& settings, int n_streams,
                                               In logits, Out h_res, Scratch) {
    const int n = kN ? kN : n_streams;
    const bool transposed = settings.ints[0] != 0;
    const V gamma = Lane<V>::set(settings.floats[0]);
    V weight[kN ? kN : kMaxStreams];
    softmax(n, logits, weight);
    for (int k = 0; k < n; ++k) {
      const V rest = Lane<V>::set(k == 0 ? 1 - settings.floats[0] : 0);
      const V coefficient = fma(gamma, weight[k], rest);
      for (int r = 0; r < n; ++r) h_res[place(transposed, n, r, k)] = coefficient;
    }
  }

  template <int kN, class V, class In, class Grad, class Out, class Scratch>
  static HYPERSTREAMS_HOST_DEVICE void backward(const MapSettings& settings, int n_streams,
                                                In logits, Grad grad_h_res, Out grad_logits,
                                                Scratch) {
    const int n = kN ? kN : n_streams;
    const bool transposed = settings.ints[0] != 0;
    const V gamma = Lane<V>::set(settings.floats[0]);
    V weight[kN ? kN : kMaxStreams], grad[kN ? kN : kMaxStreams];
    softmax(n, logits, weight);
    V mean = Lane<V>::set(0);
    for (int k = 0; k < n; ++k) {
      V sum = grad_h_res[place(transposed, n, 0, k)];
      for (int r = 1; r < n; ++r) sum = sum + grad_h_res[place(transposed, n, r, k)];
      grad[k] = gamma * sum;
      mean = fma(weight[k], grad[k], mean);
    }
    for (int k = 0; k < n; ++k) grad_logits[k] = weight[k] * (grad[k] - mean);
  }
};

}  // namespace hyperstreams::maps
