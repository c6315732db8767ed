// The maps and coefficients written down once more, in plain double loops over one token, in the
// most direct form: what the kernels' results are compared with.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <vector>

#include "hyperstreams/coefficients.h"

namespace hyperstreams::testing {

using Values = std::vector<double>;

inline double log_add_exp(double a, double b) {
  const double largest = std::max(a, b);
  return largest + std::log(std::exp(a - largest) + std::exp(b - largest));
}

/// log(sum(exp)) of n elements of m from `first`, `step` apart.
inline double log_sum_exp(const Values& m, int first, int step, int n) {
  double largest = m[first];
  for (int k = 1; k < n; ++k) largest = std::max(largest, m[first + k * step]);
  double sum = 0;
  for (int k = 0; k < n; ++k) sum += std::exp(m[first + k * step] - largest);
  return largest + std::log(sum);
}

/// All steps on log M, row-major.
inline Values define_sinkhorn(const MapSettings& s, int n, const Values& logits) {
  const bool softmax_start = s.ints[1] != 0, rows_first = s.ints[2] != 0;
  const double eps = s.floats[0];
  Values m(logits);
  for (double& v : m) v /= s.floats[1];
  const auto normalise = [&](bool rows, bool add_eps) {
    for (int line = 0; line < n; ++line) {
      const int first = rows ? line * n : line, step = rows ? 1 : n;
      double total = log_sum_exp(m, first, step, n);
      if (add_eps && eps > 0) total = log_add_exp(total, std::log(eps));
      for (int k = 0; k < n; ++k) m[first + k * step] -= total;
    }
  };
  for (int step = 0; step < 2 * s.ints[0]; ++step) {
    const bool rows = (step % 2 == 0) == rows_first;
    if (step == 0 && softmax_start) {
      normalise(true, false);
      for (double& v : m) v = eps > 0 ? log_add_exp(v, std::log(eps)) : v;
    } else {
      normalise(rows, true);
    }
  }
  Values h(m.size());
  for (int r = 0; r < n; ++r) {
    for (int c = 0; c < n; ++c) h[s.ints[3] ? c * n + r : r * n + c] = std::exp(m[r * n + c]);
  }
  return h;
}

inline Values define_permutation(const MapSettings& s, int n, const Values& logits) {
  const int count = static_cast<int>(logits.size());
  const double total = log_sum_exp(logits, 0, 1, count);
  std::vector<int> permutation(static_cast<size_t>(n));
  std::iota(permutation.begin(), permutation.end(), 0);
  Values h(static_cast<size_t>(n * n), 0.0);
  for (int k = 0; k < count; ++k) {
    for (int r = 0; r < n; ++r) {
      const int c = permutation[r];
      h[s.ints[0] ? c * n + r : r * n + c] += std::exp(logits[k] - total);
    }
    std::next_permutation(permutation.begin(), permutation.end());
  }
  return h;
}

inline Values define_map(MapKind map, const MapSettings& s, int n, const Values& logits) {
  switch (map) {
    case MapKind::kIdentity:
      return {};
    case MapKind::kFree:
      return logits;
    case MapKind::kSinkhorn:
      return define_sinkhorn(s, n, logits);
    case MapKind::kPermutation:
      return define_permutation(s, n, logits);
  }
  return {};
}

inline double define_activation(const ActivationSettings& a, double z, double alpha, double bias) {
  const auto act = [&](double v) {
    if (a.kind == ActivationKind::kSigmoid) return 1 / (1 + std::exp(-v));
    return a.kind == ActivationKind::kTanh ? std::tanh(v) : v;
  };
  return a.factor * (a.outside ? alpha * act(z) + bias : act(alpha * z + bias)) + a.offset;
}

/// h_pre, h_post and h_res of one token, one after the other.
inline Values define_coefficients(const CoefficientSettings& s, const Values& logits,
                                  const Values& inv_rms, const Values& alpha, const Values& bias) {
  const int n = s.n_streams;
  std::vector<int> group;
  group.insert(group.end(), n, 0);
  group.insert(group.end(), n, 1);
  for (int g = 0; g < s.mix_groups; ++g) group.insert(group.end(), s.mix_group_sizes[g], 2 + g);
  Values a(logits.size());
  for (int k = 0; k < static_cast<int>(a.size()); ++k) {
    // Joint position k is slot k / n of stream k % n: read, write, then the n destinations.
    const double z =
        s.per_stream ? logits[(k % n) * (2 + n) + k / n] * inv_rms[k % n] : logits[k] * inv_rms[0];
    const ActivationSettings& stage = k < n ? s.read : k < 2 * n ? s.write : s.mix;
    a[k] = define_activation(stage, z, alpha[group[k]], bias[k]);
  }
  const Values mix(a.begin() + 2 * n, a.end());
  Values h(a.begin(), a.begin() + 2 * n);
  for (const double v : define_map(s.map, s.map_settings, n, mix)) h.push_back(v);
  return h;
}

/// d(sum_k weight[k] f(x)[k])/dx by central differences.
inline Values differentiate(const std::function<Values(const Values&)>& f, Values x,
                            const Values& weight) {
  const double step = 1e-5;
  Values grad(x.size());
  const auto loss = [&] {
    const Values y = f(x);
    return std::inner_product(y.begin(), y.end(), weight.begin(), 0.0);
  };
  for (size_t k = 0; k < x.size(); ++k) {
    const double at = x[k];
    x[k] = at + step;
    const double above = loss();
    x[k] = at - step;
    grad[k] = (above - loss()) / (2 * step);
    x[k] = at;
  }
  return grad;
}

}  // namespace hyperstreams::testing
