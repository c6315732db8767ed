// spectral: h_res = J + P U diag(sigma) V^T P^T (sHC, 2603.20896), for n <= 4.
//
// J = 1/n everywhere, P [n, n - 1] the Helmert basis: column i (from 1) is i times 1, then -i, then
// zeros, over sqrt(i (i + 1)). U = (I + A)^-1 (I - A) with A skew, its strict upper triangle
// row-major gamma_u tanh(logit); V likewise; sigma = tanh(logit). Logits: U, V, sigma. Floats:
// [gamma_u, gamma_v].
//
// Up to three dimensions A x = v cross x, and (I + A)^-1 = (I - A + v v^T)/(1 + |v|^2): there is
// nothing to solve, and no difference of large numbers.
#pragma once

#include "hyperstreams/maps/arrays.h"
#include "hyperstreams/maps/scalar.h"
#include "hyperstreams/maps/settings.h"

namespace hyperstreams::maps {

constexpr int kMaxSpectralStreams = 4;

/// U = ((1 - |v|^2) I - 2 A + 2 v v^T)/(1 + |v|^2), kM x kM.
template <int kM, class V>
struct CayleyFactor {
  static constexpr int angles = kM * (kM - 1) / 2;
  V tanh_of[angles + 1], v[3], inverse, u[kM * kM + 1];

  /// `logits[first]` and on are the triangle's.
  template <class In>
  HYPERSTREAMS_HOST_DEVICE void forward(double gamma, In logits, int first) {
    const V zero = Lane<V>::set(0), one = Lane<V>::set(1), scale = Lane<V>::set(gamma);
    for (int k = 0; k < angles; ++k) tanh_of[k] = tanh(logits[first + k]);
    if constexpr (kM == 1) u[0] = one;
    if constexpr (kM == 2) v[2] = zero - scale * tanh_of[0];
    if constexpr (kM == 3) {
      v[0] = zero - scale * tanh_of[2];
      v[1] = scale * tanh_of[1];
      v[2] = zero - scale * tanh_of[0];
    }
    if constexpr (kM >= 2) {
      V square = v[2] * v[2];
      if constexpr (kM == 3) square = fma(v[0], v[0], fma(v[1], v[1], square));
      inverse = one / (one + square);
      const V twice = inverse + inverse, diagonal = (one - square) * inverse;
      if constexpr (kM == 2) {
        u[0] = u[3] = diagonal;
        u[1] = twice * v[2];
        u[2] = zero - u[1];
      } else {
        for (int k = 0; k < 3; ++k) {
          const int next = (k + 1) % 3, last = (k + 2) % 3;
          u[4 * k] = fma(twice * v[k], v[k], diagonal);
          // A[k, next] = -v[last].
          u[3 * k + next] = twice * fma(v[k], v[next], v[last]);
          u[3 * next + k] = twice * (v[k] * v[next] - v[last]);
        }
      }
    }
  }

  /// grad_logits of the same triangle from dL/dU.
  template <class Out>
  HYPERSTREAMS_HOST_DEVICE void backward(double gamma, const V* grad, Out grad_logits,
                                         int first) const {
    if constexpr (kM >= 2) {
      const V zero = Lane<V>::set(0), one = Lane<V>::set(1), scale = Lane<V>::set(gamma);
      // U depends on |v|^2 through the diagonal and through the divisor.
      V along = zero;
      for (int k = 0; k < kM * kM; ++k) along = fma(grad[k], u[k], along);
      for (int k = 0; k < kM; ++k) along = along + grad[k * (kM + 1)];
      const V twice = inverse + inverse;
      V grad_v[3];
      if constexpr (kM == 2) {
        grad_v[2] = twice * (grad[1] - grad[2] - v[2] * along);
      } else {
        for (int k = 0; k < 3; ++k) {
          const int next = (k + 1) % 3, last = (k + 2) % 3;
          V sum = grad[3 * next + last] - grad[3 * last + next];
          sum = fma(grad[3 * k + next] + grad[3 * next + k], v[next], sum);
          sum = fma(grad[3 * k + last] + grad[3 * last + k], v[last], sum);
          sum = fma(grad[4 * k] + grad[4 * k], v[k], sum);
          grad_v[k] = twice * (sum - v[k] * along);
        }
      }
      for (int k = 0; k < angles; ++k) {
        const V slope = scale * fma(zero - tanh_of[k], tanh_of[k], one);
        const V of_angle = k == 1 ? grad_v[1] : zero - grad_v[2 - k];
        grad_logits[first + k] = slope * of_angle;
      }
    }
  }
};

struct Spectral {
  /// Exists for n up to this, each compiled by itself; 0: for every n.
  static constexpr int kMaxStaticStreams = kMaxSpectralStreams;

  static constexpr HYPERSTREAMS_HOST_DEVICE int logit_count(int n) { return (n - 1) * (n - 1); }
  static constexpr HYPERSTREAMS_HOST_DEVICE MapSpace forward_space(const MapSettings&, int) {
    return {0, 0};
  }
  static constexpr HYPERSTREAMS_HOST_DEVICE MapSpace backward_space(const MapSettings&, int) {
    return {0, 0};
  }

  template <class V>
  static HYPERSTREAMS_HOST_DEVICE V helmert(int i) {
    return Lane<V>::set(1 / ::sqrt(static_cast<double>(i * (i + 1))));
  }

  /// out[r] = (P x)[r], r < kM + 1; x with a stride.
  template <int kM, class V>
  static HYPERSTREAMS_HOST_DEVICE void expand(const V* x, int stride, V* out) {
    V sum = Lane<V>::set(0);
    for (int i = kM; i >= 1; --i) {
      const V w = helmert<V>(i) * x[(i - 1) * stride];
      out[i] = fma(Lane<V>::set(-i), w, sum);
      sum = sum + w;
    }
    out[0] = sum;
  }

  /// out[k] = (P^T y)[k], k < kM; y and out with strides.
  template <int kM, class V, class In>
  static HYPERSTREAMS_HOST_DEVICE void reduce(In y, int first, int stride, V* out, int out_stride) {
    V sum = y[first];
    for (int i = 1; i <= kM; ++i) {
      const V value = y[first + i * stride];
      out[(i - 1) * out_stride] = helmert<V>(i) * fma(Lane<V>::set(-i), value, sum);
      sum = sum + value;
    }
  }

  /// The three parts of the logits.
  template <int kM, class V>
  struct Parts {
    CayleyFactor<kM, V> u, v;
    V sigma[kM + 1];

    template <class In>
    HYPERSTREAMS_HOST_DEVICE Parts(const MapSettings& settings, In logits) {
      constexpr int angles = kM * (kM - 1) / 2;
      u.forward(settings.floats[0], logits, 0);
      v.forward(settings.floats[1], logits, angles);
      for (int k = 0; k < kM; ++k) sigma[k] = tanh(logits[2 * angles + k]);
    }
  };

  template <int kN, class V, class In, class Out, class Scratch>
  static HYPERSTREAMS_HOST_DEVICE void forward(const MapSettings& settings, int, In logits,
                                               Out h_res, Scratch) {
    constexpr int m = kN - 1;
    const V mean = Lane<V>::set(1.0 / kN);
    if constexpr (m == 0) {
      h_res[0] = mean;
    } else {
      const Parts<m, V> p(settings, logits);
      V rows[kN * m];  // P U diag(sigma) V^T
      for (int b = 0; b < m; ++b) {
        V column[m], expanded[kN];
        for (int a = 0; a < m; ++a) {
          V sum = p.u.u[a * m] * p.sigma[0] * p.v.u[b * m];
          for (int k = 1; k < m; ++k) {
            sum = fma(p.u.u[a * m + k] * p.sigma[k], p.v.u[b * m + k], sum);
          }
          column[a] = sum;
        }
        expand<m>(column, 1, expanded);
        for (int j = 0; j < kN; ++j) rows[j * m + b] = expanded[j];
      }
      for (int j = 0; j < kN; ++j) {
        V row[kN];
        expand<m>(rows + j * m, 1, row);
        for (int i = 0; i < kN; ++i) h_res[j * kN + i] = mean + row[i];
      }
    }
  }

  template <int kN, class V, class In, class Grad, class Out, class Scratch>
  static HYPERSTREAMS_HOST_DEVICE void backward(const MapSettings& settings, int, In logits,
                                                Grad grad_h_res, Out grad_logits, Scratch) {
    constexpr int m = kN - 1;
    if constexpr (m > 0) {
      constexpr int angles = m * (m - 1) / 2;
      const Parts<m, V> p(settings, logits);
      const V zero = Lane<V>::set(0), one = Lane<V>::set(1);
      V rows[kN * m], grad[m * m];  // G P and P^T G P
      for (int j = 0; j < kN; ++j) reduce<m>(grad_h_res, j * kN, 1, rows + j * m, 1);
      for (int b = 0; b < m; ++b) reduce<m>(rows, b, m, grad + b, m);
      V grad_u[m * m], grad_v[m * m];
      for (int k = 0; k < m; ++k) {
        V of_sigma = zero;
        for (int a = 0; a < m; ++a) {
          V to_u = grad[a * m] * p.v.u[k], to_v = grad[a] * p.u.u[k];
          for (int b = 1; b < m; ++b) {
            to_u = fma(grad[a * m + b], p.v.u[b * m + k], to_u);
            to_v = fma(grad[b * m + a], p.u.u[b * m + k], to_v);
          }
          of_sigma = fma(p.u.u[a * m + k], to_u, of_sigma);
          grad_u[a * m + k] = p.sigma[k] * to_u;
          grad_v[a * m + k] = p.sigma[k] * to_v;
        }
        grad_logits[2 * angles + k] = of_sigma * fma(zero - p.sigma[k], p.sigma[k], one);
      }
      p.u.backward(settings.floats[0], grad_u, grad_logits, 0);
      p.v.backward(settings.floats[1], grad_v, grad_logits, angles);
    }
  }
};

}  // namespace hyperstreams::maps
