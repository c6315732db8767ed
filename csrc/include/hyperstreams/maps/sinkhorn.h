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
  /// Exists for n up to this, each compiled by itself; 0: for every n.
  static constexpr int kMaxStaticStreams = 0;

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

  /// The parts of a Start, for functions that do not know its size.
  template <class V>
  struct StartView {
    V *matrix, *row, *column, *kernel, *r, *c, *in_range;
  };

  /// M_0 = diag(r) kernel diag(c), with axes such that columns are normalised first: element (a, b)
  /// belongs to S[a, b], or S[b, a] when rows_first. In the exp start matrix, row and column are
  /// the logarithms of the three; in the softmax start r and c are 1 and matrix is kernel.
  template <class V, int kSize>
  struct Start {
    V matrix[kSize * kSize], row[kSize], column[kSize];
    V kernel[kSize * kSize], r[kSize], c[kSize];
    V in_range;  // 1 where linear scalings may be tried, else 0

    HYPERSTREAMS_HOST_DEVICE StartView<V> view() {
      return {matrix, row, column, kernel, r, c, &in_range};
    }
  };

  /// Linear scalings are exact while r c < exp(bound): an entry of K that underflowed would then
  /// still be negligible in M.
  template <class T>
  static constexpr HYPERSTREAMS_HOST_DEVICE double exponent_bound() {
    return sizeof(T) == 4 ? 60.0 : 600.0;
  }

  template <int kN, class V, class In>
  static HYPERSTREAMS_HOST_DEVICE_COLD void start(const Settings& s, int n_streams, In logits,
                                                  const StartView<V>& m) {
    const int n = kN ? kN : n_streams;
    const V zero = Lane<V>::set(0), one = Lane<V>::set(1);
    const V temperature = Lane<V>::set(s.temperature);
    *m.in_range = one;
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
          m.kernel[a * n + b] = exp(m.matrix[a * n + b]);
          sum = sum + m.kernel[a * n + b];
        }
        for (int a = 0; a < n; ++a) {
          m.kernel[a * n + b] = m.kernel[a * n + b] / sum + eps;
          m.matrix[a * n + b] = m.kernel[a * n + b];
        }
        m.row[b] = m.column[b] = zero;
        m.r[b] = m.c[b] = one;
      }
      return;
    }
    const V lowest = Lane<V>::set(-exponent_bound<typename Lane<V>::scalar>());
    for (int a = 0; a < n; ++a) {
      V largest = m.matrix[a * n];
      for (int b = 1; b < n; ++b) largest = max(largest, m.matrix[a * n + b]);
      m.row[a] = largest;
      for (int b = 0; b < n; ++b) {
        m.matrix[a * n + b] = m.matrix[a * n + b] - largest;
        m.kernel[a * n + b] = exp(m.matrix[a * n + b]);
      }
      m.r[a] = exp(m.row[a]);
      m.c[a] = exp(m.column[a]);
      if (s.rounds.eps > 0) {
        *m.in_range = select(less(lowest, min(m.row[a], m.column[a])), *m.in_range, zero);
      }
    }
  }

  /// 1 in the lanes where linear scalings that ended with r and c are exact.
  template <int kN, class V>
  static HYPERSTREAMS_HOST_DEVICE V good_lanes(int n_streams, V in_range, const V* r, const V* c) {
    const int n = kN ? kN : n_streams;
    V sum_r = r[0], sum_c = c[0];
    for (int a = 1; a < n; ++a) {
      sum_r = sum_r + r[a];
      sum_c = sum_c + c[a];
    }
    const V limit = exp(Lane<V>::set(exponent_bound<typename Lane<V>::scalar>()));
    return select(less(sum_r * sum_c, limit), in_range, Lane<V>::set(0));
  }

  template <class V>
  static HYPERSTREAMS_HOST_DEVICE bool all_good(V good) {
    return !any_less(good, Lane<V>::set(1));
  }

  /// The iterations in the log domain: `m.matrix`, row and column become log K, log r and log c.
  template <bool kHistory, class V, class Scratch>
  static HYPERSTREAMS_HOST_DEVICE void logarithmic(const Settings& s, int n, const StartView<V>& m,
                                                   Scratch history) {
    for (int k = 0; s.softmax_start && k < n * n; ++k) m.matrix[k] = log(m.matrix[k]);
    LogScaling::forward<0, kHistory>(s.rounds, n, m.matrix, m.row, m.column, history);
  }

  /// Replaces M in the lanes where `good` is 0.
  template <class V, class Scratch>
  static HYPERSTREAMS_HOST_DEVICE_OUTLINE void repair_forward(const Settings& s, int n,
                                                              const StartView<V>& m, V good,
                                                              V* result, Scratch history) {
    logarithmic<false>(s, n, m, history);
    for (int a = 0; a < n; ++a) {
      for (int b = 0; b < n; ++b) {
        const V value = LogScaling::entry(m.matrix[a * n + b], m.row[a], m.column[b]);
        result[a * n + b] = select(less(Lane<V>::set(0), good), result[a * n + b], value);
      }
    }
  }

  /// Replaces dL/dlog M_0 in the lanes where `good` is 0; `grad` is dL/dM and is overwritten.
  template <class V, class Scratch>
  static HYPERSTREAMS_HOST_DEVICE_OUTLINE void repair_backward(const Settings& s, int n,
                                                               const StartView<V>& m, V good,
                                                               V* grad, V* result,
                                                               Scratch history) {
    logarithmic<true>(s, n, m, history);
    sinkhorn_reverse<LogScaling, 0>(s.rounds, n, m.matrix, grad, history);
    for (int k = 0; k < n * n; ++k) {
      result[k] = select(less(Lane<V>::set(0), good), result[k], grad[k]);
    }
  }

  template <int kN, class V, class In, class Out, class Scratch>
  static HYPERSTREAMS_HOST_DEVICE void forward(const MapSettings& settings, int n_streams,
                                               In logits, Out h_res, Scratch history) {
    const int n = kN ? kN : n_streams;
    const Settings s = Settings::from<typename Lane<V>::scalar>(settings);
    Start<V, (kN ? kN : kMaxStreams)> m;
    start<kColdStreams<kN>>(s, n, logits, m.view());
    LinearScaling::forward<kN, false>(s.rounds, n, m.kernel, m.r, m.c, history);
    for (int a = 0; a < n; ++a) {
      for (int b = 0; b < n; ++b) {
        m.kernel[a * n + b] = LinearScaling::entry(m.kernel[a * n + b], m.r[a], m.c[b]);
      }
    }
    const V good = good_lanes<kN>(n, m.in_range, m.r, m.c);
    if (!all_good(good)) repair_forward(s, n, m.view(), good, m.kernel, history);
    const bool swap = s.rows_first != s.transposed;
    for (int a = 0; a < n; ++a) {
      for (int b = 0; b < n; ++b) {
        h_res[a * n + b] = swap ? m.kernel[b * n + a] : m.kernel[a * n + b];
      }
    }
  }

  template <int kN, class V, class In, class Grad, class Out, class Scratch>
  static HYPERSTREAMS_HOST_DEVICE void backward(const MapSettings& settings, int n_streams,
                                                In logits, Grad grad_h_res, Out grad_logits,
                                                Scratch history) {
    constexpr int size = kN ? kN : kMaxStreams;
    const int n = kN ? kN : n_streams;
    const Settings s = Settings::from<typename Lane<V>::scalar>(settings);
    Start<V, size> m;
    start<kColdStreams<kN>>(s, n, logits, m.view());
    const bool swap = s.rows_first != s.transposed;
    V grad[size * size], spare[size * size];
    for (int a = 0; a < n; ++a) {
      for (int b = 0; b < n; ++b) {
        grad[a * n + b] = swap ? grad_h_res[b * n + a] : grad_h_res[a * n + b];
        spare[a * n + b] = grad[a * n + b];
      }
    }
    LinearScaling::forward<kN, true>(s.rounds, n, m.kernel, m.r, m.c, history);
    sinkhorn_reverse<LinearScaling, kN>(s.rounds, n, m.kernel, grad, history);
    const V good = good_lanes<kN>(n, m.in_range, m.r, m.c);
    if (!all_good(good)) repair_backward(s, n, m.view(), good, spare, grad, history);
    if (s.softmax_start) softmax_adjoint<kColdStreams<kN>>(s, n, m.kernel, grad);
    const V temperature = Lane<V>::set(s.temperature);
    for (int a = 0; a < n; ++a) {
      for (int b = 0; b < n; ++b) {
        const V value = s.rows_first ? grad[b * n + a] : grad[a * n + b];
        grad_logits[a * n + b] = value / temperature;
      }
    }
  }

  /// From dL/dlog(softmax + eps) to dL/dS, in place. `start` is softmax + eps.
  template <int kN, class V>
  static HYPERSTREAMS_HOST_DEVICE_COLD void softmax_adjoint(const Settings& s, int n_streams,
                                                            const V* start, V* grad) {
    const int n = kN ? kN : n_streams;
    const V eps = Lane<V>::set(s.rounds.eps);
    for (int b = 0; b < n; ++b) {
      V mean = Lane<V>::set(0);
      for (int a = 0; a < n; ++a) {
        grad[a * n + b] = grad[a * n + b] / start[a * n + b];
        mean = fma(grad[a * n + b], start[a * n + b] - eps, mean);
      }
      for (int a = 0; a < n; ++a) {
        grad[a * n + b] = (start[a * n + b] - eps) * (grad[a * n + b] - mean);
      }
    }
  }
};

}  // namespace hyperstreams::maps
