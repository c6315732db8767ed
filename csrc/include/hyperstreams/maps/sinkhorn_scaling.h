// The two evaluations of finite Sinkhorn iterations on M_0 = diag(r_0) K diag(c_0) > 0.
//
// M keeps the form M[a, b] = r[a] K[a, b] c[b]. One round divides every column b by its sum over a
// plus eps, which changes c alone, and then every row a by its sum over b plus eps, which changes r
// alone:
//
//   1/c'[b] = sum_a K[a, b] r[a] + eps/c[b],      1/r'[a] = sum_b K[a, b] c'[b] + eps/r[a]
//
// The adjoint is taken with respect to log M. With H the gradient there, a step over columns that
// produced M' contributes H[a, b] -= M'[a, b] sum_a H[a, b], whatever eps; rows alike. So all that
// a reverse sweep needs is r and c after each step: the history, r_0 and then (c, r) of each round.
//
// LinearScaling keeps r and c themselves, LogScaling their logarithms; LogScaling is several times
// slower and has no range to leave. K is balanced by the caller: largest entry of each row and
// column about 1.
#pragma once

#include "hyperstreams/maps/arrays.h"
#include "hyperstreams/maps/scalar.h"

namespace hyperstreams::maps {

/// `rounds` rounds, of which the first omits its column step when skip_first.
struct SinkhornRounds {
  int rounds;
  bool skip_first;
  double eps;
};

/// Size of the history.
constexpr HYPERSTREAMS_HOST_DEVICE int sinkhorn_history(int n, int rounds) {
  return n + 2 * n * rounds;
}

/// Numbers that either `forward` or the reverse sweep takes from `arrays` by itself.
constexpr HYPERSTREAMS_HOST_DEVICE int sinkhorn_sweep_arrays(int n) { return 2 * n; }

struct LinearScaling {
  /// K [n, n] row-major, r = r_0, c = c_0 (of no effect when eps is 0). On return r and c are
  /// final; `history` is filled when kHistory.
  template <int kN, bool kHistory, class V, class Array, class Scratch>
  static HYPERSTREAMS_HOST_DEVICE void forward(const SinkhornRounds& s, int n_streams,
                                               Array kernel_in, Array r_inout, Array c_inout,
                                               Arrays<V, Scratch> arrays, Scratch history) {
    const int n = kN ? kN : n_streams;
    const V one = Lane<V>::set(1), eps = Lane<V>::set(s.eps);
    constexpr int size = kN ? kN : kMaxStreams;
    auto kernel = arrays.template hold<size * size>(kernel_in, n * n);
    auto r = arrays.template hold<size>(r_inout, n), c = arrays.template hold<size>(c_inout, n);
    auto inv_r = arrays.template take<size>(n), inv_c = arrays.template take<size>(n);
    for (int a = 0; a < n; ++a) {
      inv_r[a] = s.eps > 0 ? one / r[a] : one;
      inv_c[a] = s.eps > 0 ? one / c[a] : one;
      if (kHistory) history[a] = r[a];
    }
    for (int t = 0; t < s.rounds; ++t) {
      if (t > 0 || !s.skip_first) {
        for (int b = 0; b < n; ++b) {
          V sum = eps * inv_c[b];
          for (int a = 0; a < n; ++a) sum = fma(kernel[a * n + b], r[a], sum);
          inv_c[b] = sum;
          c[b] = one / sum;
        }
      }
      for (int a = 0; a < n; ++a) {
        V sum = eps * inv_r[a];
        for (int b = 0; b < n; ++b) sum = fma(kernel[a * n + b], c[b], sum);
        inv_r[a] = sum;
        r[a] = one / sum;
      }
      if (kHistory) {
        for (int a = 0; a < n; ++a) {
          history[n + 2 * n * t + a] = c[a];
          history[2 * n + 2 * n * t + a] = r[a];
        }
      }
    }
    for (int a = 0; a < n; ++a) {
      r_inout[a] = r[a];
      c_inout[a] = c[a];
    }
  }

  /// M[a, b] from K, r and c.
  template <class V>
  static HYPERSTREAMS_HOST_DEVICE V entry(V kernel, V r, V c) {
    return kernel * c * r;
  }

  /// grad - M[a, b] sum, where x is the scale that varies fastest and y the other.
  template <class V>
  static HYPERSTREAMS_HOST_DEVICE V subtract(V grad, V kernel, V x, V y, V sum) {
    return fma(kernel * x, Lane<V>::set(0) - y * sum, grad);
  }
};

struct LogScaling {
  /// log(exp(a) + exp(b)).
  template <class V>
  static HYPERSTREAMS_HOST_DEVICE V add_exp(V a, V b) {
    const V largest = max(a, b);
    return largest + log(exp(a - largest) + exp(b - largest));
  }

  /// One axis: `of` is normalised given `given`; kernel element (x, y) is at x * dx + y * dy.
  template <class V, class Array>
  static HYPERSTREAMS_HOST_DEVICE void normalise(bool has_eps, V log_eps, int n, Array kernel,
                                                 int dx, int dy, Array given, Array of) {
    for (int x = 0; x < n; ++x) {
      V largest = kernel[x * dx] + given[0];
      for (int y = 1; y < n; ++y) largest = max(largest, kernel[x * dx + y * dy] + given[y]);
      V sum = Lane<V>::set(0);
      for (int y = 0; y < n; ++y) {
        sum = sum + exp(kernel[x * dx + y * dy] + given[y] - largest);
      }
      V total = largest + log(sum);
      if (has_eps) total = add_exp(total, log_eps - of[x]);
      of[x] = Lane<V>::set(0) - total;
    }
  }

  /// As LinearScaling::forward, with the logarithms of K, r and c.
  template <int kN, bool kHistory, class V, class Array, class Scratch>
  static HYPERSTREAMS_HOST_DEVICE void forward(const SinkhornRounds& s, int n_streams, Array kernel,
                                               Array r, Array c, Scratch history) {
    const int n = kN ? kN : n_streams;
    const bool has_eps = s.eps > 0;
    const V log_eps = Lane<V>::set(has_eps ? ::log(s.eps) : 0.0);
    for (int a = 0; kHistory && a < n; ++a) history[a] = r[a];
    for (int t = 0; t < s.rounds; ++t) {
      if (t > 0 || !s.skip_first) normalise(has_eps, log_eps, n, kernel, 1, n, r, c);
      normalise(has_eps, log_eps, n, kernel, n, 1, c, r);
      for (int a = 0; kHistory && a < n; ++a) {
        history[n + 2 * n * t + a] = c[a];
        history[2 * n + 2 * n * t + a] = r[a];
      }
    }
  }

  template <class V>
  static HYPERSTREAMS_HOST_DEVICE V entry(V kernel, V r, V c) {
    return exp(kernel + r + c);
  }

  template <class V>
  static HYPERSTREAMS_HOST_DEVICE V subtract(V grad, V kernel, V x, V y, V sum) {
    return fma(exp(kernel + x + y), Lane<V>::set(0) - sum, grad);
  }
};

/// From `grad` = dL/dM of the last round to dL/dlog M_0, in place.
template <class Scaling, int kN, class V, class Array, class Scratch>
HYPERSTREAMS_HOST_DEVICE void sinkhorn_reverse(const SinkhornRounds& s, int n_streams,
                                               Array kernel_in, Array grad_inout,
                                               Arrays<V, Scratch> arrays, Scratch history) {
  const int n = kN ? kN : n_streams;
  constexpr int size = kN ? kN : kMaxStreams;
  auto kernel = arrays.template hold<size * size>(kernel_in, n * n);
  auto grad = arrays.template hold<size * size>(grad_inout, n * n);
  auto r = arrays.template take<size>(n), c = arrays.template take<size>(n);
  for (int a = 0; a < n; ++a) {
    c[a] = history[n + 2 * n * (s.rounds - 1) + a];
    r[a] = history[2 * n + 2 * n * (s.rounds - 1) + a];
  }
  for (int a = 0; a < n; ++a) {
    for (int b = 0; b < n; ++b) {
      grad[a * n + b] = grad[a * n + b] * Scaling::entry(kernel[a * n + b], r[a], c[b]);
    }
  }
  for (int t = s.rounds - 1; t >= 0; --t) {
    for (int a = 0; a < n; ++a) {
      V sum = grad[a * n];
      for (int b = 1; b < n; ++b) sum = sum + grad[a * n + b];
      for (int b = 0; b < n; ++b) {
        grad[a * n + b] = Scaling::subtract(grad[a * n + b], kernel[a * n + b], c[b], r[a], sum);
      }
      r[a] = history[2 * n * t + a];
    }
    if (t == 0 && s.skip_first) break;
    for (int b = 0; b < n; ++b) {
      V sum = grad[b];
      for (int a = 1; a < n; ++a) sum = sum + grad[a * n + b];
      for (int a = 0; a < n; ++a) {
        grad[a * n + b] = Scaling::subtract(grad[a * n + b], kernel[a * n + b], r[a], c[b], sum);
      }
      if (t > 0) c[b] = history[n + 2 * n * (t - 1) + b];
    }
  }
  for (int k = 0; k < n * n; ++k) grad_inout[k] = grad[k];
}

}  // namespace hyperstreams::maps
