// permutation: h_res = sum_k softmax(logits)_k P_k over all n! permutations (mHC-lite, 2601.05732).
//
// P_k[r, c] = 1 iff c = permutation_k(r), permutations in lexicographic order, identity first.
// Integer settings: [source_rows], 1 when h_res is the transposed sum.
#pragma once

#include "hyperstreams/maps/arrays.h"
#include "hyperstreams/maps/scalar.h"
#include "hyperstreams/maps/settings.h"
#include "hyperstreams/maps/softmax.h"

namespace hyperstreams::maps {

constexpr int kMaxPermutationStreams = 5;

constexpr HYPERSTREAMS_HOST_DEVICE int factorial(int n) {
  int product = 1;
  for (int k = 2; k <= n; ++k) product *= k;
  return product;
}

// The tables are aggregates that functions fill: nvcc leaves a static table that a constexpr
// constructor fills zero on the device, without a word.

/// column[k][r] = permutation_k(r).
template <int kN>
struct PermutationTable {
  signed char column[factorial(kN)][kN];
};

template <int kN>
constexpr HYPERSTREAMS_HOST_DEVICE PermutationTable<kN> permutation_table() {
  PermutationTable<kN> table = {};
  for (int k = 0; k < factorial(kN); ++k) {
    bool used[kN] = {};
    int rest = k;
    for (int r = 0; r < kN; ++r) {
      // Digit r of k in the factorial number system: which of the unused columns comes next.
      int skip = rest / factorial(kN - 1 - r);
      rest %= factorial(kN - 1 - r);
      int c = 0;
      while (used[c] || skip > 0) {
        if (!used[c]) --skip;
        ++c;
      }
      used[c] = true;
      table.column[k][r] = static_cast<signed char>(c);
    }
  }
  return table;
}

/// permutation[r * kN + c]: those that map r to c, ascending.
template <int kN>
struct PermutationsByEntry {
  static constexpr int count = factorial(kN - 1);
  signed char permutation[kN * kN][count];
};

template <int kN>
constexpr HYPERSTREAMS_HOST_DEVICE PermutationsByEntry<kN> permutations_by_entry() {
  constexpr PermutationTable<kN> table = permutation_table<kN>();
  PermutationsByEntry<kN> of_entry = {};
  for (int e = 0; e < kN * kN; ++e) {
    int found = 0;
    for (int k = 0; k < factorial(kN); ++k) {
      if (table.column[k][e / kN] == e % kN) {
        of_entry.permutation[e][found++] = static_cast<signed char>(k);
      }
    }
  }
  return of_entry;
}

struct Permutation {
  /// Exists for n up to this, each compiled by itself; 0: for every n.
  static constexpr int kMaxStaticStreams = kMaxPermutationStreams;

  static constexpr HYPERSTREAMS_HOST_DEVICE int logit_count(int n) { return factorial(n); }
  static constexpr HYPERSTREAMS_HOST_DEVICE MapSpace forward_space(const MapSettings&, int n) {
    return {0, factorial(n)};
  }
  static constexpr HYPERSTREAMS_HOST_DEVICE MapSpace backward_space(const MapSettings&, int n) {
    return {0, factorial(n)};
  }

  template <int kN, class V, class In, class Out, class Scratch>
  static HYPERSTREAMS_HOST_DEVICE void forward(const MapSettings& settings, int, In logits,
                                               Out h_res, Scratch scratch) {
    static constexpr PermutationsByEntry<kN> of_entry = permutations_by_entry<kN>();
    const bool transposed = settings.ints[0] != 0;
    Arrays<V, Scratch> arrays(scratch);
    auto weight = arrays.template take<factorial(kN)>(factorial(kN));
    const V scale = softmax_weights<V>(logits, factorial(kN), weight.view());
    for (int r = 0; r < kN; ++r) {
      for (int c = 0; c < kN; ++c) {
        const int e = r * kN + c;
        V sum = weight[of_entry.permutation[e][0]];
        for (int j = 1; j < of_entry.count; ++j) sum = sum + weight[of_entry.permutation[e][j]];
        h_res[transposed ? c * kN + r : e] = sum * scale;
      }
    }
  }

  template <int kN, class V, class In, class Grad, class Out, class Scratch>
  static HYPERSTREAMS_HOST_DEVICE void backward(const MapSettings& settings, int, In logits,
                                                Grad grad_h_res, Out grad_logits, Scratch scratch) {
    static constexpr PermutationTable<kN> table = permutation_table<kN>();
    const bool transposed = settings.ints[0] != 0;
    Arrays<V, Scratch> arrays(scratch);
    auto weight = arrays.template take<factorial(kN)>(factorial(kN));
    const V scale = softmax_weights<V>(logits, factorial(kN), weight.view());
    V g[kN * kN];
    for (int r = 0; r < kN; ++r) {
      for (int c = 0; c < kN; ++c) {
        g[r * kN + c] = transposed ? grad_h_res[c * kN + r] : grad_h_res[r * kN + c];
      }
    }
    const auto grad_weight = [&](int k) {
      V sum = g[table.column[k][0]];
      for (int r = 1; r < kN; ++r) sum = sum + g[r * kN + table.column[k][r]];
      return sum;
    };
    const V weighted = in_chains(
        factorial(kN), Lane<V>::set(0),
        [&](int k, V sum) { return fma(weight[k], grad_weight(k), sum); },
        [](V a, V b) { return a + b; });
    const V mean = weighted * scale;
    for (int k = 0; k < factorial(kN); ++k) {
      grad_logits[k] = weight[k] * scale * (grad_weight(k) - mean);
    }
  }
};

}  // namespace hyperstreams::maps
