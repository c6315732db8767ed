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

#include "hyperstreams/maps/arrays.h"
#include "hyperstreams/maps/scalar.h"
#include "hyperstreams/maps/settings.h"
#include "hyperstreams/maps/sinkhorn_scaling.h"

namespace hyperstreams::maps {

struct Sinkhorn {
  /// Exists for n up to this, each compiled by itself; 0: for every n.
  static constexpr int kMaxStaticStreams = 0;

  static constexpr HYPERSTREAMS_HOST_DEVICE int logit_count(int n) { return n * n; }
  static constexpr HYPERSTREAMS_HOST_DEVICE MapSpace forward_space(const MapSettings&, int n) {
    return {0, n * n + 2 * n + sinkhorn_sweep_arrays(n)};
  }
  static constexpr HYPERSTREAMS_HOST_DEVICE MapSpace backward_space(const MapSettings& settings,
                                                                    int n) {
    return {sinkhorn_history(n, settings.ints[0]), 2 * n * n + 2 * n + sinkhorn_sweep_arrays(n)};
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

  /// Linear scalings are exact while r c < exp(bound): an entry of K that underflowed would then
  /// still be negligible in M.
  template <class T>
  static constexpr HYPERSTREAMS_HOST_DEVICE double exponent_bound() {
    return sizeof(T) == 4 ? 60.0 : 600.0;
  }

  /// M_0 with axes such that columns are normalised first: element (a, b) belongs to S[a, b], or
  /// S[b, a] when rows_first. With the exp start log M_0 = row + matrix + column, balanced; with
  /// the softmax start M_0 = matrix.
  template <int kN, class V, class In, class Array>
  static HYPERSTREAMS_HOST_DEVICE void balance(const Settings& s, int n_streams, In logits,
                                               Array matrix, Array row, Array column) {
    const int n = kN ? kN : n_streams;
    const V temperature = Lane<V>::set(s.temperature);
    for (int a = 0; a < n; ++a) {
      for (int b = 0; b < n; ++b) {
        matrix[a * n + b] = (s.rows_first ? logits[b * n + a] : logits[a * n + b]) / temperature;
      }
    }
    for (int b = 0; b < n; ++b) {
      V largest = matrix[b];
      for (int a = 1; a < n; ++a) largest = max(largest, matrix[a * n + b]);
      column[b] = largest;
      for (int a = 0; a < n; ++a) matrix[a * n + b] = matrix[a * n + b] - largest;
    }
    if (s.softmax_start) {
      const V eps = Lane<V>::set(s.rounds.eps);
      for (int b = 0; b < n; ++b) {
        V sum = Lane<V>::set(0);
        for (int a = 0; a < n; ++a) {
          matrix[a * n + b] = exp(matrix[a * n + b]);
          sum = sum + matrix[a * n + b];
        }
        for (int a = 0; a < n; ++a) matrix[a * n + b] = matrix[a * n + b] / sum + eps;
      }
      return;
    }
    for (int a = 0; a < n; ++a) {
      V largest = matrix[a * n];
      for (int b = 1; b < n; ++b) largest = max(largest, matrix[a * n + b]);
      row[a] = largest;
      for (int b = 0; b < n; ++b) matrix[a * n + b] = matrix[a * n + b] - largest;
    }
  }

  /// M_0 = diag(r) kernel diag(c). Returns 1 where linear scalings may be tried, else 0.
  template <int kN, class V, class In, class Array>
  static HYPERSTREAMS_HOST_DEVICE_COLD V start(const Settings& s, int n_streams, In logits,
                                               Array kernel, Array r, Array c) {
    const int n = kN ? kN : n_streams;
    const V zero = Lane<V>::set(0), one = Lane<V>::set(1);
    balance<kN, V>(s, n, logits, kernel, r, c);
    V in_range = one;
    if (s.softmax_start) {
      for (int a = 0; a < n; ++a) r[a] = c[a] = one;
      return in_range;
    }
    const V lowest = Lane<V>::set(-exponent_bound<typename Lane<V>::scalar>());
    for (int a = 0; a < n; ++a) {
      if (s.rounds.eps > 0) in_range = select(less(lowest, min(r[a], c[a])), in_range, zero);
      for (int b = 0; b < n; ++b) kernel[a * n + b] = exp(kernel[a * n + b]);
      r[a] = exp(r[a]);
      c[a] = exp(c[a]);
    }
    return in_range;
  }

  /// 1 in the lanes where linear scalings that ended with r and c are exact.
  template <int kN, class V, class Array>
  static HYPERSTREAMS_HOST_DEVICE V good_lanes(int n_streams, V in_range, Array r, Array c) {
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

  /// The iterations in the log domain: matrix, row and column become log K, log r and log c.
  template <int kN, bool kHistory, class V, class In, class Array, class Scratch>
  static HYPERSTREAMS_HOST_DEVICE void logarithmic(const Settings& s, int n_streams, In logits,
                                                   Array matrix, Array row, Array column,
                                                   Scratch history) {
    const int n = kN ? kN : n_streams;
    balance<kN, V>(s, n, logits, matrix, row, column);
    if (s.softmax_start) {
      for (int k = 0; k < n * n; ++k) matrix[k] = log(matrix[k]);
      for (int a = 0; a < n; ++a) row[a] = column[a] = Lane<V>::set(0);
    }
    LogScaling::forward<kN, kHistory, V>(s.rounds, n, matrix, row, column, history);
  }

  /// Replaces M in the lanes where `good` is 0. `result` may be memory of `arrays`.
  template <int kN, class V, class In, class Array, class Scratch>
  static HYPERSTREAMS_HOST_DEVICE_COLD void repair_forward(const Settings& s, int n_streams,
                                                           In logits, V good, Array result,
                                                           Arrays<V, Scratch> arrays,
                                                           Scratch history) {
    constexpr int size = kN ? kN : kMaxStreams;
    const int n = kN ? kN : n_streams;
    auto matrix = arrays.template take<size * size>(n * n);
    auto row = arrays.template take<size>(n), column = arrays.template take<size>(n);
    logarithmic<kN, false, V>(s, n, logits, matrix.view(), row.view(), column.view(), history);
    for (int a = 0; a < n; ++a) {
      for (int b = 0; b < n; ++b) {
        const V value = LogScaling::entry(matrix[a * n + b], row[a], column[b]);
        result[a * n + b] = select(less(Lane<V>::set(0), good), result[a * n + b], value);
      }
    }
  }

  /// Replaces dL/dlog M_0 in the lanes where `good` is 0. `result` may be memory of `arrays`.
  template <int kN, class V, class In, class Grad, class Array, class Scratch>
  static HYPERSTREAMS_HOST_DEVICE_COLD void repair_backward(const Settings& s, int n_streams,
                                                            In logits, Grad grad_h_res, V good,
                                                            Array result, Arrays<V, Scratch> arrays,
                                                            Scratch history) {
    constexpr int size = kN ? kN : kMaxStreams;
    const int n = kN ? kN : n_streams;
    auto matrix = arrays.template take<size * size>(n * n);
    auto row = arrays.template take<size>(n), column = arrays.template take<size>(n);
    auto grad = arrays.template take<size * size>(n * n);
    logarithmic<kN, true, V>(s, n, logits, matrix.view(), row.view(), column.view(), history);
    load_grad<kN, V>(s, n, grad_h_res, grad.view());
    sinkhorn_reverse<LogScaling, kN, V>(s.rounds, n, matrix.view(), grad.view(), arrays, history);
    for (int k = 0; k < n * n; ++k) {
      result[k] = select(less(Lane<V>::set(0), good), result[k], grad[k]);
    }
  }

  /// dL/dM with M's axes.
  template <int kN, class V, class Grad, class Array>
  static HYPERSTREAMS_HOST_DEVICE void load_grad(const Settings& s, int n_streams, Grad grad_h_res,
                                                 Array grad) {
    const int n = kN ? kN : n_streams;
    const bool swap = s.rows_first != s.transposed;
    for (int a = 0; a < n; ++a) {
      for (int b = 0; b < n; ++b) {
        grad[a * n + b] = swap ? grad_h_res[b * n + a] : grad_h_res[a * n + b];
      }
    }
  }

  template <int kN, class V, class In, class Out, class Scratch>
  static HYPERSTREAMS_HOST_DEVICE void forward(const MapSettings& settings, int n_streams,
                                               In logits, Out h_res, Scratch history) {
    constexpr int size = kN ? kN : kMaxStreams;
    const int n = kN ? kN : n_streams;
    const Settings s = Settings::from<typename Lane<V>::scalar>(settings);
    const Arrays<V, Scratch> all(history);
    Arrays<V, Scratch> arrays = all;
    auto kernel = arrays.template take<size * size>(n * n);
    auto r = arrays.template take<size>(n), c = arrays.template take<size>(n);
    const V in_range = start<kColdStreams<kN>, V>(s, n, logits, kernel.view(), r.view(), c.view());
    LinearScaling::forward<kN, false, V>(s.rounds, n, kernel.view(), r.view(), c.view(), arrays,
                                         history);
    for (int a = 0; a < n; ++a) {
      for (int b = 0; b < n; ++b) {
        kernel[a * n + b] = LinearScaling::entry(kernel[a * n + b], r[a], c[b]);
      }
    }
    const V good = good_lanes<kN>(n, in_range, r.view(), c.view());
    if (!all_good(good)) {
      repair_forward<kColdStreams<kN>, V>(s, n, logits, good, kernel.view(), all, history);
    }
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
    constexpr int size = kN ? kN : kMaxStreams;
    const int n = kN ? kN : n_streams;
    const Settings s = Settings::from<typename Lane<V>::scalar>(settings);
    const Arrays<V, Scratch> all(history);
    Arrays<V, Scratch> arrays = all;
    auto kernel = arrays.template take<size * size>(n * n);
    auto r = arrays.template take<size>(n), c = arrays.template take<size>(n);
    auto grad = arrays.template take<size * size>(n * n);
    const V in_range = start<kColdStreams<kN>, V>(s, n, logits, kernel.view(), r.view(), c.view());
    LinearScaling::forward<kN, true, V>(s.rounds, n, kernel.view(), r.view(), c.view(), arrays,
                                        history);
    const V good = good_lanes<kN>(n, in_range, r.view(), c.view());
    load_grad<kN, V>(s, n, grad_h_res, grad.view());
    sinkhorn_reverse<LinearScaling, kN, V>(s.rounds, n, kernel.view(), grad.view(), arrays,
                                           history);
    if (!all_good(good)) {
      repair_backward<kColdStreams<kN>, V>(s, n, logits, grad_h_res, good, grad.view(), all,
                                           history);
      // The softmax is wanted once more.
      if (all.kSameMemory) {
        start<kColdStreams<kN>, V>(s, n, logits, kernel.view(), r.view(), c.view());
      }
    }
    if (s.softmax_start) softmax_adjoint<kColdStreams<kN>, V>(s, n, kernel.view(), grad.view());
    const V temperature = Lane<V>::set(s.temperature);
    for (int a = 0; a < n; ++a) {
      for (int b = 0; b < n; ++b) {
        const V value = s.rows_first ? grad[b * n + a] : grad[a * n + b];
        grad_logits[a * n + b] = value / temperature;
      }
    }
  }

  /// From dL/dlog(softmax + eps) to dL/dS, in place. `start` is softmax + eps.
  template <int kN, class V, class Array>
  static HYPERSTREAMS_HOST_DEVICE_COLD void softmax_adjoint(const Settings& s, int n_streams,
                                                            Array start, Array grad) {
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
