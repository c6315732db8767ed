// sinkhorn: finitely many alternating normalisations of a positive matrix (mHC, 2512.24880).
//
// S = logits / temperature, row-major. M starts as exp(S), or as softmax(S over each row) + eps,
// which counts as the first row step; then each round divides by (sum + eps) along one axis and
// along the other. Integer settings: [iterations, softmax_start, rows_first, source_rows]; floats:
// [eps, temperature]. source_rows: h_res is M transposed.
//
// Every token is evaluated with linear scalings of a balanced matrix; a token whose scalings leave
// the range in which that is exact is evaluated in the log domain instead. Which, depends on the
// token's own logits alone.
#pragma once

#include "hyperstreams/maps/scalar.h"
#include "hyperstreams/maps/settings.h"
#include "hyperstreams/maps/sinkhorn_scaling.h"

namespace hyperstreams::maps {

struct Sinkhorn {
  static constexpr HYPERSTREAMS_HOST_DEVICE int logit_count(int n) { return n * n; }
  static constexpr HYPERSTREAMS_HOST_DEVICE int scratch_size(const MapSettings& settings, int n) {
    return sinkhorn_history(n, settings.ints[0]);
  }

  struct Settings {
    SinkhornRounds rounds;
    bool softmax_start, rows_first, transposed;
    double temperature;

    template <class T>
    static HYPERSTREAMS_HOST_DEVICE Settings from(const MapSettings& s) {
      Settings r;
      // What is below the normal range of T counts as 0.
      const bool has_eps = s.floats[0] >= (sizeof(T) == 4 ? 0x1p-126 : 0x1p-1022);
      r.rounds.rounds = s.ints[0];
      r.rounds.eps = has_eps ? s.floats[0] : 0.0;
      // Without eps, the softmax is a row step on exp(S).
      r.softmax_start = s.ints[1] != 0 && has_eps;
      r.rows_first = s.ints[2] != 0;
      r.transposed = s.ints[3] != 0;
      r.rounds.skip_first = r.softmax_start;
      r.temperature = s.floats[1];
      return r;
    }
  };

  /// M_0 = diag(exp(row)) exp(matrix) diag(exp(column)), with axes such that columns are normalised
  /// first: element (a, b) is S[a, b], or S[b, a] when rows_first.
  template <class V>
  struct Start {
    V* matrix;  // exp start: balanced logits; softmax start: softmax + eps
    V* row;
    V* column;
    V in_range;  // 1 where linear scalings may be tried, else 0
  };

  /// Bound on the exponents that linear scalings may reach: exp(-bound) squared is still normal or
  /// negligible beside the sums, which are at least 1/n.
  template <class T>
  static constexpr HYPERSTREAMS_HOST_DEVICE double exponent_bound() {
    return sizeof(T) == 4 ? 60.0 : 600.0;
  }

  template <int kN, class V, class In>
  static HYPERSTREAMS_HOST_DEVICE void start(const Settings& s, int n_streams, In logits,
                                             Start<V>& m) {
    const int n = kN ? kN : n_streams;
    const V zero = Lane<V>::set(0);
    const V temperature = Lane<V>::set(s.temperature);
    for (int a = 0; a < n; ++a) {
      for (int b = 0; b < n; ++b) {
        m.matrix[a * n + b] = (s.rows_first ? logits[b * n + a] : logits[a * n + b]) / temperature;
      }
    }
    for (int b = 0; b < n; ++b) {
      V largest = m.matrix[b];
      for (int a = 1; a < n; ++a) largest = max(largest, m.matrix[a * n + b]);
      m.column[b] = largest;
      for (int a = 0; a < n; ++a) m.matrix[a * n + b] = m.matrix[a * n + b] - largest;
    }
    if (s.softmax_start) {
      const V eps = Lane<V>::set(s.rounds.eps);
      for (int b = 0; b < n; ++b) {
        V sum = zero;
        for (int a = 0; a < n; ++a) {
          m.matrix[a * n + b] = exp(m.matrix[a * n + b]);
          sum = sum + m.matrix[a * n + b];
        }
        for (int a = 0; a < n; ++a) m.matrix[a * n + b] = m.matrix[a * n + b] / sum + eps;
        m.column[b] = zero;
        m.row[b] = zero;
      }
      return;
    }
    const V lowest = Lane<V>::set(-exponent_bound<typename Lane<V>::scalar>());
    for (int a = 0; a < n; ++a) {
      V largest = m.matrix[a * n];
      for (int b = 1; b < n; ++b) largest = max(largest, m.matrix[a * n + b]);
      m.row[a] = largest;
      for (int b = 0; b < n; ++b) m.matrix[a * n + b] = m.matrix[a * n + b] - largest;
      if (s.rounds.eps > 0) {
        m.in_range = select(less(lowest, min(m.row[a], m.column[a])), m.in_range, zero);
      }
    }
  }

  /// Linear scalings. On return `kernel` is K, r and c are final, and the value is 1 in the lanes
  /// where the result is good.
  template <int kN, bool kHistory, class V, class Scratch>
  static HYPERSTREAMS_HOST_DEVICE V linear(const Settings& s, int n_streams, const Start<V>& m,
                                           V* kernel, V* r, V* c, Scratch history) {
    const int n = kN ? kN : n_streams;
    const V zero = Lane<V>::set(0);
    const V limit = exp(Lane<V>::set(exponent_bound<typename Lane<V>::scalar>()));
    for (int k = 0; k < n * n; ++k) kernel[k] = s.softmax_start ? m.matrix[k] : exp(m.matrix[k]);
    for (int a = 0; a < n; ++a) {
      r[a] = exp(m.row[a]);
      c[a] = exp(m.column[a]);
    }
    LinearScaling::forward<kN, kHistory>(s.rounds, n, kernel, r, c, history);
    V sum_r = zero, sum_c = zero;
    for (int a = 0; a < n; ++a) {
      sum_r = sum_r + r[a];
      sum_c = sum_c + c[a];
    }
    return select(less(sum_r * sum_c, limit), m.in_range, zero);
  }

  /// The same in the log domain, at a run-time n: `kernel` is log K, r and c are logarithms.
  template <bool kHistory, class V, class Scratch>
  static HYPERSTREAMS_HOST_DEVICE void logarithmic(const Settings& s, int n, const Start<V>& m,
                                                   V* kernel, V* r, V* c, Scratch history) {
    for (int k = 0; k < n * n; ++k) kernel[k] = s.softmax_start ? log(m.matrix[k]) : m.matrix[k];
    for (int a = 0; a < n; ++a) {
      r[a] = m.row[a];
      c[a] = m.column[a];
    }
    LogScaling::forward<0, kHistory>(s.rounds, n, kernel, r, c, history);
  }

  /// Replaces M in the lanes where `good` is 0.
  template <class V, class Scratch>
  static HYPERSTREAMS_HOST_DEVICE_OUTLINE void repair_forward(const Settings& s, int n,
                                                              const Start<V>& m, V good, V* result,
                                                              Scratch history) {
    V kernel[256], r[16], c[16];
    logarithmic<false>(s, n, m, kernel, r, c, history);
    for (int a = 0; a < n; ++a) {
      for (int b = 0; b < n; ++b) {
        const V value = LogScaling::entry(kernel[a * n + b], r[a], c[b]);
        result[a * n + b] = select(less(Lane<V>::set(0), good), result[a * n + b], value);
      }
    }
  }

  /// Replaces dL/dlog M_0 in the lanes where `good` is 0; `grad` is dL/dM and is overwritten.
  template <class V, class Scratch>
  static HYPERSTREAMS_HOST_DEVICE_OUTLINE void repair_backward(const Settings& s, int n,
                                                               const Start<V>& m, V good, V* grad,
                                                               V* result, Scratch history) {
    V kernel[256], r[16], c[16];
    logarithmic<true>(s, n, m, kernel, r, c, history);
    sinkhorn_reverse<LogScaling, 0>(s.rounds, n, kernel, grad, history);
    for (int k = 0; k < n * n; ++k) {
      result[k] = select(less(Lane<V>::set(0), good), result[k], grad[k]);
    }
  }

  template <class V>
  static HYPERSTREAMS_HOST_DEVICE bool all_good(V good) {
    return !any_less(good, Lane<V>::set(1));
  }

  template <int kN, class V, class In, class Out, class Scratch>
  static HYPERSTREAMS_HOST_DEVICE void forward(const MapSettings& settings, int n_streams,
                                               In logits, Out h_res, Scratch history) {
    constexpr int size = kN ? kN : 16;
    const int n = kN ? kN : n_streams;
    const Settings s = Settings::from<typename Lane<V>::scalar>(settings);
    V matrix[size * size], row[size], column[size];
    Start<V> m = {matrix, row, column, Lane<V>::set(1)};
    start<kN>(s, n, logits, m);
    V kernel[size * size], r[size], c[size];
    const V good = linear<kN, false>(s, n, m, kernel, r, c, history);
    for (int a = 0; a < n; ++a) {
      for (int b = 0; b < n; ++b) {
        kernel[a * n + b] = LinearScaling::entry(kernel[a * n + b], r[a], c[b]);
      }
    }
    if (!all_good(good)) repair_forward(s, n, m, good, kernel, history);
    const bool swap = s.rows_first != s.transposed;
    for (int a = 0; a < n; ++a) {
      for (int b = 0; b < n; ++b) {
        h_res[a * n + b] = swap ? kernel[b * n + a] : kernel[a * n + b];
      }
    }
  }

  template <int kN, class V, class In, class Grad, class Out, class Scratch>
  static HYPERSTREAMS_HOST_DEVICE void backward(const MapSettings& settings, int n_streams,
                                                In logits, Grad grad_h_res, Out grad_logits,
                                                Scratch history) {
    constexpr int size = kN ? kN : 16;
    const int n = kN ? kN : n_streams;
    const Settings s = Settings::from<typename Lane<V>::scalar>(settings);
    V matrix[size * size], row[size], column[size];
    Start<V> m = {matrix, row, column, Lane<V>::set(1)};
    start<kN>(s, n, logits, m);
    const bool swap = s.rows_first != s.transposed;
    V grad[size * size];
    const auto load_grad = [&](V* to) {
      for (int a = 0; a < n; ++a) {
        for (int b = 0; b < n; ++b) {
          to[a * n + b] = swap ? grad_h_res[b * n + a] : grad_h_res[a * n + b];
        }
      }
    };
    load_grad(grad);
    V kernel[size * size], r[size], c[size];
    const V good = linear<kN, true>(s, n, m, kernel, r, c, history);
    sinkhorn_reverse<LinearScaling, kN>(s.rounds, n, kernel, grad, history);
    if (!all_good(good)) {
      V other[size * size];
      load_grad(other);
      repair_backward(s, n, m, good, other, grad, history);
    }
    if (s.softmax_start) softmax_adjoint<kN>(s, n, m, grad);
    const V temperature = Lane<V>::set(s.temperature);
    for (int a = 0; a < n; ++a) {
      for (int b = 0; b < n; ++b) {
        const V value = s.rows_first ? grad[b * n + a] : grad[a * n + b];
        grad_logits[a * n + b] = value / temperature;
      }
    }
  }

  /// From dL/dlog(softmax + eps) to dL/dS, in place.
  template <int kN, class V>
  static HYPERSTREAMS_HOST_DEVICE void softmax_adjoint(const Settings& s, int n_streams,
                                                       const Start<V>& m, V* grad) {
    const int n = kN ? kN : n_streams;
    const V eps = Lane<V>::set(s.rounds.eps);
    for (int b = 0; b < n; ++b) {
      V mean = Lane<V>::set(0);
      for (int a = 0; a < n; ++a) {
        const V start = m.matrix[a * n + b];
        grad[a * n + b] = grad[a * n + b] / start;
        mean = fma(grad[a * n + b], start - eps, mean);
      }
      for (int a = 0; a < n; ++a) {
        grad[a * n + b] = (m.matrix[a * n + b] - eps) * (grad[a * n + b] - mean);
      }
    }
  }
};

}  // namespace hyperstreams::maps
