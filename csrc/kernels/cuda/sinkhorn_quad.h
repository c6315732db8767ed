// sinkhorn for n = kN <= 4: a token by 4 lanes of a warp, the algorithm of maps/sinkhorn.h.
//
// Lane a of a token has row a and column a of K and the scales r[a] and c[a], so that a step of a
// round is kN shuffles, a sum of kN products and one reciprocal. Backward it has row a and column a
// of the gradient too: a step is one of the sums and kN shuffles, which tell it what the others
// subtract. What a lane is given of others comes by shuffles; it reads back its own history alone.
#pragma once

#include "device/device.h"
#include "hyperstreams/maps/sinkhorn.h"

namespace hyperstreams::cuda {

constexpr int kQuad = 4;

/// Sinkhorn of the token of this lane and 3 others. Every lane of a warp calls every function.
template <int kN>
class SinkhornQuad {
 public:
  using Settings = maps::Sinkhorn::Settings;

  /// logits: S of this token, [n, n].
  __device__ __forceinline__ SinkhornQuad(const MapSettings& settings, const float* logits)
      : s_(Settings::from<float>(settings)),
        logits_(logits),
        eps_(static_cast<float>(s_.rounds.eps)),
        first_(lane() / kQuad * kQuad),
        index_(lane() % kQuad < kN ? lane() % kQuad : kN - 1) {}

  /// Writes h_res [n, n], of a token that exists.
  __device__ __forceinline__ void forward(bool exists, float* h_res) {
    start();
    iterate<false>(nullptr);
    float all_r[kN], all_c[kN], m[kN];
    const bool good = is_good(all_r, all_c);
    const bool swap = s_.rows_first != s_.transposed;
#pragma unroll
    for (int b = 0; b < kN; ++b) {
      m[b] = swap ? column_[b] * c_ * all_r[b] : row_[b] * all_c[b] * r_;
    }
    if (warp_any(!good)) {
      start_logarithmic();
      iterate_logarithmic<false>(nullptr);
      gather(r_, all_r);
      gather(c_, all_c);
#pragma unroll
      for (int b = 0; b < kN; ++b) {
        const float value = maps::exp(swap ? column_[b] + c_ + all_r[b] : row_[b] + r_ + all_c[b]);
        if (!good) m[b] = value;
      }
    }
    if (!exists || !owns()) return;
#pragma unroll
    for (int b = 0; b < kN; ++b) h_res[index_ * kN + b] = m[b];
  }

  /// This lane's row and column of dL/dM, or dL/dlog M.
  struct Gradient {
    float row[kN], column[kN];
  };

  __device__ __forceinline__ Gradient load_gradient(const float* grad_h_res) const {
    const bool swap = s_.rows_first != s_.transposed;
    const int along_row = swap ? kN : 1, along_column = swap ? 1 : kN;
    Gradient grad;
#pragma unroll
    for (int b = 0; b < kN; ++b) {
      grad.row[b] = grad_h_res[index_ * along_column + b * along_row];
      grad.column[b] = grad_h_res[index_ * along_row + b * along_column];
    }
    return grad;
  }

  /// Writes dL/dS [n, n], which may be memory of the logits. history: this lane's, of which element
  /// k is at k * stride.
  __device__ __forceinline__ void backward(const Gradient& of_m, float* history, int stride,
                                           float* grad_logits) {
    stride_ = stride;
    start();
    iterate<true>(history);
    float all_r[kN], all_c[kN];
    const bool good = is_good(all_r, all_c);
    Gradient grad;
#pragma unroll
    for (int b = 0; b < kN; ++b) {
      grad.row[b] = of_m.row[b] * (row_[b] * all_c[b] * r_);
      grad.column[b] = of_m.column[b] * (column_[b] * c_ * all_r[b]);
    }
    reverse(history, grad);
    if (warp_any(!good)) {
      start_logarithmic();
      iterate_logarithmic<true>(history);
      gather(r_, all_r);
      gather(c_, all_c);
      Gradient repaired;
#pragma unroll
      for (int b = 0; b < kN; ++b) {
        repaired.row[b] = of_m.row[b] * maps::exp(row_[b] + r_ + all_c[b]);
        repaired.column[b] = of_m.column[b] * maps::exp(column_[b] + all_r[b] + c_);
      }
      reverse_logarithmic(history, repaired);
#pragma unroll
      for (int b = 0; b < kN; ++b) {
        if (!good) grad.row[b] = repaired.row[b];
      }
      // The softmax is wanted once more.
      if (s_.softmax_start) start();
    }
    if (s_.softmax_start) softmax_adjoint(grad.row);
    if (!owns()) return;
    const int along = s_.rows_first ? kN : 1, across = s_.rows_first ? 1 : kN;
    const float temperature = static_cast<float>(s_.temperature), inverse = reciprocal(temperature);
#pragma unroll
    for (int b = 0; b < kN; ++b) {
      grad_logits[index_ * across + b * along] = divide(grad.row[b], temperature, inverse);
    }
  }

 private:
  __device__ __forceinline__ bool owns() const { return kN == kQuad || lane() % kQuad < kN; }

  /// all[b] = lane b's.
  __device__ __forceinline__ void gather(float own, float (&all)[kN]) const {
#pragma unroll
    for (int b = 0; b < kN; ++b) all[b] = warp_shuffle(own, first_ + b);
  }

  __device__ __forceinline__ static float largest_of(const float (&x)[kN]) {
    float largest = x[0];
#pragma unroll
    for (int b = 1; b < kN; ++b) largest = maps::max(largest, x[b]);
    return largest;
  }

  __device__ __forceinline__ static float sum_of(const float (&x)[kN]) {
    float sum = x[0];
#pragma unroll
    for (int b = 1; b < kN; ++b) sum += x[b];
    return sum;
  }

  /// x / y, rounded like it where no step leaves the range; inverse: 1 / y.
  __device__ __forceinline__ static float divide(float x, float y, float inverse) {
    const float quotient = x * inverse;
    return fmaf(fmaf(-quotient, y, x), inverse, quotient);
  }

  /// log K in row_ and column_, log r_0 and log c_0 in r_ and c_. With the softmax start, the
  /// logarithms of exp(S) with the largest of a column subtracted; c_: those.
  __device__ __forceinline__ void balance() {
    const int along = s_.rows_first ? kN : 1, across = s_.rows_first ? 1 : kN;
    const float temperature = static_cast<float>(s_.temperature), inverse = reciprocal(temperature);
#pragma unroll
    for (int b = 0; b < kN; ++b) {
      row_[b] = divide(logits_[index_ * across + b * along], temperature, inverse);
      column_[b] = divide(logits_[index_ * along + b * across], temperature, inverse);
    }
    float all[kN];
    c_ = largest_of(column_);
    gather(c_, all);
#pragma unroll
    for (int b = 0; b < kN; ++b) {
      row_[b] -= all[b];
      column_[b] -= c_;
    }
    if (s_.softmax_start) return;
    r_ = largest_of(row_);
    gather(r_, all);
#pragma unroll
    for (int b = 0; b < kN; ++b) {
      row_[b] -= r_;
      column_[b] -= all[b];
    }
  }

  /// M_0 = diag(r_) K diag(c_).
  __device__ __forceinline__ void start() {
    balance();
#pragma unroll
    for (int b = 0; b < kN; ++b) {
      row_[b] = maps::exp(row_[b]);
      column_[b] = maps::exp(column_[b]);
    }
    if (s_.softmax_start) {
      float all[kN];
      const float inverse = reciprocal(sum_of(column_));
      gather(inverse, all);
#pragma unroll
      for (int b = 0; b < kN; ++b) {
        row_[b] = fmaf(row_[b], all[b], eps_);
        column_[b] = fmaf(column_[b], inverse, eps_);
      }
      r_ = c_ = 1;
      return;
    }
    constexpr float kLowest = -maps::Sinkhorn::exponent_bound<float>();
    const bool in_range = !(eps_ > 0) || maps::min(r_, c_) > kLowest;
    // NaN: found by is_good.
    r_ = in_range ? maps::exp(r_) : float_from_bits(0x7fc00000);
    c_ = maps::exp(c_);
  }

  /// This scale given the others of the other axis; inverse: 1 / scale, before and after.
  __device__ __forceinline__ float normalised(const float (&kernel)[kN], float given,
                                              float& inverse) const {
    float all[kN];
    gather(given, all);
    inverse *= eps_;
#pragma unroll
    for (int b = 0; b < kN; ++b) inverse = fmaf(kernel[b], all[b], inverse);
    return reciprocal(inverse);
  }

  /// history: r_0, then c and r of each round.
  template <bool kHistory>
  __device__ __forceinline__ void iterate(float* history) {
    float inverse_r = eps_ > 0 ? reciprocal(r_) : 1, inverse_c = eps_ > 0 ? reciprocal(c_) : 1;
    if (kHistory && owns()) history[0] = r_;
#pragma unroll 1
    for (int t = 0; t < s_.rounds.rounds; ++t) {
      if (t > 0 || !s_.rounds.skip_first) c_ = normalised(column_, r_, inverse_c);
      r_ = normalised(row_, c_, inverse_r);
      if (kHistory) keep(history, t);
    }
  }
  __device__ __forceinline__ void keep(float* history, int t) const {
    if (!owns()) return;
    history[(2 * t + 1) * stride_] = c_;
    history[(2 * t + 2) * stride_] = r_;
  }
  __device__ __forceinline__ float kept(const float* history, int k) const {
    return owns() ? history[k * stride_] : 0;
  }

  /// Whether linear scalings were exact, for all lanes of the token.
  __device__ __forceinline__ bool is_good(float (&all_r)[kN], float (&all_c)[kN]) const {
    gather(r_, all_r);
    gather(c_, all_c);
    static_assert(maps::Sinkhorn::exponent_bound<float>() == 60);
    constexpr float kLimit = 1.1420074e26f;  // exp(60)
    return sum_of(all_r) * sum_of(all_c) < kLimit;
  }

  /// From dL/dlog M of the last round to dL/dlog M_0. Both copies of an element get the same bits.
  __device__ __forceinline__ void reverse(const float* history, Gradient& grad) const {
    float r = r_, c = c_;
#pragma unroll 1
    for (int t = s_.rounds.rounds - 1; t >= 0; --t) {
      const float r_before = kept(history, 2 * t), c_before = t > 0 ? kept(history, 2 * t - 1) : 0;
      float given[kN], all[kN];
      gather(c, given);
      const float of_row = -r * sum_of(grad.row);
      gather(of_row, all);
#pragma unroll
      for (int b = 0; b < kN; ++b) {
        grad.row[b] = fmaf(row_[b] * given[b], of_row, grad.row[b]);
        grad.column[b] = fmaf(column_[b] * c, all[b], grad.column[b]);
      }
      if (t == 0 && s_.rounds.skip_first) break;
      gather(r_before, given);
      const float of_column = -c * sum_of(grad.column);
      gather(of_column, all);
#pragma unroll
      for (int b = 0; b < kN; ++b) {
        grad.row[b] = fmaf(row_[b] * r_before, all[b], grad.row[b]);
        grad.column[b] = fmaf(column_[b] * given[b], of_column, grad.column[b]);
      }
      r = r_before;
      c = c_before;
    }
  }

  // The same in the log domain, for a warp in which some token needs it.

  /// row_, column_, r_ and c_ become log K, log r_0 and log c_0.
  __device__ __forceinline__ void start_logarithmic();

  __device__ __forceinline__ float normalised_logarithm(const float (&kernel)[kN], float given,
                                                        float log_eps, float before) const;

  template <bool kHistory>
  __device__ __forceinline__ void iterate_logarithmic(float* history);

  __device__ __forceinline__ void reverse_logarithmic(const float* history, Gradient& grad) const;

  /// From dL/dlog(softmax + eps) to dL/dS, this row; row_ is softmax + eps.
  __device__ __forceinline__ void softmax_adjoint(float (&grad)[kN]) const {
#pragma unroll
    for (int b = 0; b < kN; ++b) {
      const float softmax = row_[b] - eps_, of_softmax = grad[b] * reciprocal(row_[b]);
      float all[kN];
      gather(of_softmax * softmax, all);
      grad[b] = softmax * (of_softmax - sum_of(all));
    }
  }

  Settings s_;
  const float* logits_;
  float eps_;
  int first_;  // lane of the token's element 0
  int index_;  // of this lane's row and column; lanes beyond the last have its own
  int stride_ = 0;
  float row_[kN], column_[kN];  // K[index, .] and K[., index], or their logarithms
  float r_, c_;                 // scales of them
};

}  // namespace hyperstreams::cuda
