// kronecker: h_res = U_1 x ... x U_K, a Kronecker product of small mixtures of permutations
// (KromHC, 2601.21579).
//
// n = i_1 ... i_K, U_1 outermost; U_k [i_k, i_k] is the permutation map of its own i_k! logits,
// factor-major. Integer settings: [source_rows, i_1, ..., i_K, 0...]; source_rows is 1 when h_res
// is transposed. Factors are 2 to 5.
//
// When all factors are 2, U_k = [[p_k, q_k], [q_k, p_k]] and h_res[r, c] = w[r xor c]: there are n
// different entries, the leaves of a binary tree of products. A single factor is the permutation
// map itself, called where n is a compile-time constant; up to n = 5 nothing else is left. Other
// factorisations take the general way.
#pragma once

#include "hyperstreams/maps/arrays.h"
#include "hyperstreams/maps/permutation.h"
#include "hyperstreams/maps/scalar.h"
#include "hyperstreams/maps/settings.h"

namespace hyperstreams::maps {

struct Kronecker {
  /// Exists for n up to this, each compiled by itself; 0: for every n.
  static constexpr int kMaxStaticStreams = 0;

  static constexpr int kMaxFactors = 4;  // 2 x 2 x 2 x 2 = kMaxStreams
  static constexpr int kMaxFactorEntries = kMaxPermutationStreams * kMaxPermutationStreams;

  static constexpr HYPERSTREAMS_HOST_DEVICE int factor_count(const MapSettings& settings) {
    int count = 0;
    while (count < kMaxFactors && settings.ints[1 + count] != 0) ++count;
    return count;
  }

  /// Number of logits, or -1 when the factors are not a factorisation of n into 2 to 5.
  static constexpr HYPERSTREAMS_HOST_DEVICE int logit_count(const MapSettings& settings, int n) {
    int product = 1, logits = 0;
    for (int k = 0; k < factor_count(settings); ++k) {
      const int factor = settings.ints[1 + k];
      if (factor < 2 || factor > kMaxPermutationStreams) return -1;
      product *= factor;
      logits += factorial(factor);
    }
    return product == n ? logits : -1;
  }

  static constexpr HYPERSTREAMS_HOST_DEVICE bool is_binary(const MapSettings& settings) {
    for (int k = 0; k < factor_count(settings); ++k) {
      if (settings.ints[1 + k] != 2) return false;
    }
    return true;
  }

  template <int kN, class V, class In, class Out, class Scratch>
  static HYPERSTREAMS_HOST_DEVICE void forward(const MapSettings& settings, int n_streams,
                                               In logits, Out h_res, Scratch scratch) {
    if constexpr ((kN & (kN - 1)) == 0) {
      if (is_binary(settings)) {
        Arrays<V, Scratch> arrays(scratch);
        const Tree<kN, V, Arrays<V, Scratch>> tree(n_streams, logits, arrays);
        return tree.forward(n_streams, h_res);
      }
    }
    if constexpr (kN > 0 && kN <= kMaxPermutationStreams) {
      Permutation::forward<kN, V>(settings, kN, logits, h_res, scratch);
    } else {
      general_forward<V>(settings, n_streams, logits, h_res, scratch);
    }
  }

  template <int kN, class V, class In, class Grad, class Out, class Scratch>
  static HYPERSTREAMS_HOST_DEVICE void backward(const MapSettings& settings, int n_streams,
                                                In logits, Grad grad_h_res, Out grad_logits,
                                                Scratch scratch) {
    if constexpr ((kN & (kN - 1)) == 0) {
      if (is_binary(settings)) {
        Arrays<V, Scratch> arrays(scratch);
        const Tree<kN, V, Arrays<V, Scratch>> tree(n_streams, logits, arrays);
        return tree.backward(n_streams, grad_h_res, grad_logits, arrays);
      }
    }
    if constexpr (kN > 0 && kN <= kMaxPermutationStreams) {
      Permutation::backward<kN, V>(settings, kN, logits, grad_h_res, grad_logits, scratch);
    } else {
      general_backward<V>(settings, n_streams, logits, grad_h_res, grad_logits, scratch);
    }
  }

  /// Factors of 2 alone. product[1] = 1 is the root; node m of level k (2^k <= m < 2^(k + 1)) has
  /// children 2m and 2m + 1, its product times p_k and q_k; the leaves product[n...] are w.
  template <int kN, class V, class Source>
  struct Tree {
    static constexpr int kNodes = 2 * (kN ? kN : kMaxStreams);
    typename Source::template Array<kMaxFactors> p, q;
    typename Source::template Array<kNodes> product;

    template <class In>
    HYPERSTREAMS_HOST_DEVICE Tree(int n_streams, In logits, Source& arrays)
        : p(arrays.template take<kMaxFactors>(kMaxFactors)),
          q(arrays.template take<kMaxFactors>(kMaxFactors)),
          product(arrays.template take<kNodes>(2 * (kN ? kN : n_streams))) {
      const int n = kN ? kN : n_streams;
      const V zero = Lane<V>::set(0), one = Lane<V>::set(1);
      product[1] = one;
      for (int k = 0; (1 << k) < n; ++k) {
        // The larger of p and q is 1/(1 + e), the smaller e/(1 + e), both without cancellation.
        const V difference = logits[2 * k] - logits[2 * k + 1];
        const V e = exp(min(difference, zero - difference));
        const V large = one / (one + e), small = e * large;
        const auto swap = less(difference, zero);
        p[k] = select(swap, small, large);
        q[k] = select(swap, large, small);
        for (int m = 1 << k; m < 2 << k; ++m) {
          product[2 * m] = product[m] * p[k];
          product[2 * m + 1] = product[m] * q[k];
        }
      }
    }

    template <class Out>
    HYPERSTREAMS_HOST_DEVICE void forward(int n_streams, Out h_res) const {
      const int n = kN ? kN : n_streams;
      for (int r = 0; r < n; ++r) {
        for (int c = 0; c < n; ++c) h_res[r * n + c] = product[n + (r ^ c)];
      }
    }

    template <class Grad, class Out>
    HYPERSTREAMS_HOST_DEVICE void backward(int n_streams, Grad grad_h_res, Out grad_logits,
                                           Source& arrays) const {
      const int n = kN ? kN : n_streams;
      auto grad = arrays.template take<kNodes>(2 * n);
      for (int m = 0; m < n; ++m) {
        grad[n + m] = grad_h_res[m];
        for (int r = 1; r < n; ++r) grad[n + m] = grad[n + m] + grad_h_res[r * n + (r ^ m)];
      }
      int levels = 0;
      while ((1 << levels) < n) ++levels;
      for (int k = levels - 1; k >= 0; --k) {
        V difference = Lane<V>::set(0);  // dL/dp - dL/dq
        for (int m = 1 << k; m < 2 << k; ++m) {
          difference = fma(product[m], grad[2 * m] - grad[2 * m + 1], difference);
          grad[m] = fma(grad[2 * m], p[k], grad[2 * m + 1] * q[k]);
        }
        const V value = p[k] * q[k] * difference;
        grad_logits[2 * k] = value;
        grad_logits[2 * k + 1] = Lane<V>::set(0) - value;
      }
    }
  };

  /// Where the parts of the general way stand in scratch: the softmax weights of all factors, the
  /// factors, the products U_1 x ... x U_k for 1 < k < K, and the gradient of a product.
  struct Places {
    int count, factor[kMaxFactors];
    int weight[kMaxFactors], matrix[kMaxFactors], product[kMaxFactors];
    int grad, size;

    HYPERSTREAMS_HOST_DEVICE Places(const MapSettings& settings, int n)
        : count(factor_count(settings)) {
      size = 0;
      for (int k = 0; k < count; ++k) {
        factor[k] = settings.ints[1 + k];
        weight[k] = size;
        matrix[k] = size + factorial(factor[k]);
        size = matrix[k] + factor[k] * factor[k];
      }
      int width = count > 0 ? factor[0] : 1;
      product[0] = count > 0 ? matrix[0] : 0;
      for (int k = 1; k < count; ++k) {
        width *= factor[k];
        product[k] = size;
        if (k < count - 1) size += width * width;
      }
      grad = size;
      size += n * n;
    }
  };

  static HYPERSTREAMS_HOST_DEVICE MapSpace forward_space(const MapSettings& settings, int n) {
    if (is_binary(settings)) return {0, 2 * kMaxFactors + 2 * n};
    return {Places(settings, n).grad, 0};
  }
  static HYPERSTREAMS_HOST_DEVICE MapSpace backward_space(const MapSettings& settings, int n) {
    if (is_binary(settings)) return {0, 2 * kMaxFactors + 4 * n};
    return {Places(settings, n).size, kMaxFactorEntries};
  }

  /// Where permutation `k` of `size` things puts row r, in a row-major matrix or its transpose: the
  /// first `size`! permutations of all move the last `size` things alone, in lexicographic order.
  static HYPERSTREAMS_HOST_DEVICE int place(const PermutationTable<kMaxPermutationStreams>& table,
                                            bool transposed, int size, int k, int r) {
    const int fixed = kMaxPermutationStreams - size;
    const int c = table.column[k][fixed + r] - fixed;
    return transposed ? c * size + r : r * size + c;
  }

  /// From the logits to softmax weights, factors and products of factors.
  template <class V, class In, class Scratch>
  static HYPERSTREAMS_HOST_DEVICE void build(const MapSettings& settings, const Places& places,
                                             In logits, Scratch scratch) {
    static constexpr PermutationTable<kMaxPermutationStreams> table =
        permutation_table<kMaxPermutationStreams>();
    const bool transposed = settings.ints[0] != 0;
    int first = 0;
    for (int f = 0; f < places.count; ++f) {
      const int size = places.factor[f], count = factorial(size);
      const int weight = places.weight[f], matrix = places.matrix[f];
      V largest = logits[first], sum = Lane<V>::set(0);
      for (int k = 1; k < count; ++k) largest = max(largest, logits[first + k]);
      for (int k = 0; k < count; ++k) {
        scratch[weight + k] = exp(logits[first + k] - largest);
        sum = sum + scratch[weight + k];
      }
      const V scale = Lane<V>::set(1) / sum;
      for (int e = 0; e < size * size; ++e) scratch[matrix + e] = Lane<V>::set(0);
      for (int k = 0; k < count; ++k) {
        scratch[weight + k] = scratch[weight + k] * scale;
        for (int r = 0; r < size; ++r) {
          const int e = matrix + place(table, transposed, size, k, r);
          scratch[e] = scratch[e] + scratch[weight + k];
        }
      }
      first += count;
    }
    int width = places.factor[0];
    for (int f = 1; f < places.count - 1; ++f) {
      width *= places.factor[f];
      multiply<V>(places, f, width, scratch, scratch, places.product[f]);
    }
  }

  /// out[first...] = (U_1 x ... x U_f) x U_{f + 1}, of this width; f counts from 0.
  template <class V, class Scratch, class Out>
  static HYPERSTREAMS_HOST_DEVICE void multiply(const Places& places, int f, int width,
                                                Scratch scratch, Out out, int first) {
    const int inner = places.factor[f], outer = width / inner;
    for (int r = 0; r < width; ++r) {
      for (int c = 0; c < width; ++c) {
        out[first + r * width + c] =
            scratch[places.product[f - 1] + r / inner * outer + c / inner] *
            scratch[places.matrix[f] + r % inner * inner + c % inner];
      }
    }
  }

  template <class V, class In, class Out, class Scratch>
  static HYPERSTREAMS_HOST_DEVICE_COLD void general_forward(const MapSettings& settings, int n,
                                                            In logits, Out h_res, Scratch scratch) {
    const Places places(settings, n);
    build<V>(settings, places, logits, scratch);
    if (places.count > 1) return multiply<V>(places, places.count - 1, n, scratch, h_res, 0);
    for (int e = 0; e < n * n; ++e) h_res[e] = scratch[places.matrix[0] + e];
  }

  template <class V, class In, class Grad, class Out, class Scratch>
  static HYPERSTREAMS_HOST_DEVICE_COLD void general_backward(const MapSettings& settings, int n,
                                                             In logits, Grad grad_h_res,
                                                             Out grad_logits, Scratch scratch) {
    static constexpr PermutationTable<kMaxPermutationStreams> table =
        permutation_table<kMaxPermutationStreams>();
    const bool transposed = settings.ints[0] != 0;
    const V zero = Lane<V>::set(0);
    const Places places(settings, n);
    build<V>(settings, places, logits, scratch);
    Arrays<V, Scratch> arrays(scratch);
    auto of_factor = arrays.template take<kMaxFactorEntries>(kMaxFactorEntries);
    const int grad = places.grad;
    for (int e = 0; e < n * n; ++e) scratch[grad + e] = grad_h_res[e];
    int first = Kronecker::logit_count(settings, n);
    for (int f = places.count - 1, width = n; f >= 0; --f) {
      const int size = places.factor[f], outer = width / size, count = factorial(size);
      for (int e = 0; e < size * size; ++e) of_factor[e] = f == 0 ? scratch[grad + e] : zero;
      // The gradient of the outer product replaces that of the product: what is written at an
      // element has been read.
      for (int e = 0; f > 0 && e < outer * outer; ++e) {
        const V entry = scratch[places.product[f - 1] + e];
        V sum = zero;
        for (int r = 0; r < size; ++r) {
          for (int c = 0; c < size; ++c) {
            const V g = scratch[grad + (e / outer * size + r) * width + e % outer * size + c];
            of_factor[r * size + c] = fma(g, entry, of_factor[r * size + c]);
            sum = fma(g, scratch[places.matrix[f] + r * size + c], sum);
          }
        }
        scratch[grad + e] = sum;
      }
      first -= count;
      V mean = zero;
      for (int k = 0; k < count; ++k) {
        V sum = zero;
        for (int r = 0; r < size; ++r) {
          sum = sum + of_factor[place(table, transposed, size, k, r)];
        }
        mean = fma(scratch[places.weight[f] + k], sum, mean);
        grad_logits[first + k] = sum;
      }
      for (int k = 0; k < count; ++k) {
        grad_logits[first + k] = scratch[places.weight[f] + k] * (grad_logits[first + k] - mean);
      }
      width = outer;
    }
  }
};

}  // namespace hyperstreams::maps
