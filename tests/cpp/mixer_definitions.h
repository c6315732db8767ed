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

/// The entry of a Kronecker product is the product of the factors' entries at the digits of its row
/// and column, most significant first.
inline Values define_kronecker(const MapSettings& s, int n, const Values& logits) {
  Values h(static_cast<size_t>(n * n), 1.0);
  int first = 0, block = n;
  for (int k = 1; k < 8 && s.ints[k] != 0; ++k) {
    const int size = s.ints[k];
    int count = 1;
    for (int i = 2; i <= size; ++i) count *= i;
    const Values own(logits.begin() + first, logits.begin() + first + count);
    const Values u = define_permutation({{s.ints[0]}, {}}, size, own);
    block /= size;
    for (int j = 0; j < n; ++j) {
      for (int i = 0; i < n; ++i) h[j * n + i] *= u[j / block % size * size + i / block % size];
    }
    first += count;
  }
  return h;
}

/// (I + A)^-1 (I - A) by Gauss-Jordan elimination; I + A needs no pivots when A is skew.
inline Values define_cayley(double gamma, int m, const double* logits) {
  Values left(static_cast<size_t>(m * m), 0.0), right(left);
  for (int r = 0, k = 0; r < m; ++r) {
    left[r * m + r] = right[r * m + r] = 1;
    for (int c = r + 1; c < m; ++c, ++k) {
      const double angle = gamma * std::tanh(logits[k]);
      left[r * m + c] = right[c * m + r] = angle;
      left[c * m + r] = right[r * m + c] = -angle;
    }
  }
  for (int p = 0; p < m; ++p) {
    const double pivot = left[p * m + p];
    for (int c = 0; c < m; ++c) left[p * m + c] /= pivot, right[p * m + c] /= pivot;
    for (int r = 0; r < m; ++r) {
      const double factor = left[r * m + p];
      for (int c = 0; r != p && c < m; ++c) {
        left[r * m + c] -= factor * left[p * m + c];
        right[r * m + c] -= factor * right[p * m + c];
      }
    }
  }
  return right;
}

inline Values define_spectral(const MapSettings& s, int n, const Values& logits) {
  const int m = n - 1, angles = m * (m - 1) / 2;
  const Values u = define_cayley(s.floats[0], m, logits.data());
  const Values v = define_cayley(s.floats[1], m, logits.data() + angles);
  const auto helmert = [](int r, int i) {
    return (r <= i ? 1.0 : r == i + 1 ? -(i + 1.0) : 0.0) / std::sqrt((i + 1.0) * (i + 2.0));
  };
  Values h(static_cast<size_t>(n * n), 1.0 / n);
  for (int j = 0; j < n; ++j) {
    for (int i = 0; i < n; ++i) {
      for (int a = 0; a < m; ++a) {
        for (int b = 0; b < m; ++b) {
          double e = 0;
          for (int k = 0; k < m; ++k) {
            e += u[a * m + k] * std::tanh(logits[2 * angles + k]) * v[b * m + k];
          }
          h[j * n + i] += helmert(j, a) * e * helmert(i, b);
        }
      }
    }
  }
  return h;
}

inline Values define_circulant(const MapSettings& s, int n, const Values& logits) {
  const double total = log_sum_exp(logits, 0, 1, n);
  Values h(static_cast<size_t>(n * n));
  for (int r = 0; r < n; ++r) {
    for (int k = 0; k < n; ++k) {
      const int c = (r + k) % n;
      h[s.ints[0] ? c * n + r : r * n + c] =
          (k == 0 ? 1 - s.floats[0] : 0) + s.floats[0] * std::exp(logits[k] - total);
    }
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
    case MapKind::kKronecker:
      return define_kronecker(s, n, logits);
    case MapKind::kSpectral:
      return define_spectral(s, n, logits);
    case MapKind::kCirculant:
      return define_circulant(s, n, logits);
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
