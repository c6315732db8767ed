// sinkhorn_quad.h where linear scales leave the range of float: the same steps on logarithms.
#pragma once

#include "sinkhorn_quad.h"

namespace hyperstreams::cuda {

template <int kN>
__device__ __forceinline__ void SinkhornQuad<kN>::start_logarithmic() {
  if (!s_.softmax_start) {
    balance();
    return;
  }
  start();
#pragma unroll
  for (int b = 0; b < kN; ++b) {
    row_[b] = maps::log(row_[b]);
    column_[b] = maps::log(column_[b]);
  }
  r_ = c_ = 0;
}

template <int kN>
__device__ __forceinline__ float SinkhornQuad<kN>::normalised_logarithm(const float (&kernel)[kN],
                                                                        float given, float log_eps,
                                                                        float before) const {
  float term[kN];
  gather(given, term);
#pragma unroll
  for (int b = 0; b < kN; ++b) term[b] += kernel[b];
  const float largest = largest_of(term);
  float sum = 0;
#pragma unroll
  for (int b = 0; b < kN; ++b) sum += maps::exp(term[b] - largest);
  float total = largest + maps::log(sum);
  if (eps_ > 0) total = maps::LogScaling::add_exp(total, log_eps - before);
  return -total;
}

template <int kN>
template <bool kHistory>
__device__ __forceinline__ void SinkhornQuad<kN>::iterate_logarithmic(float* history) {
  const float log_eps = eps_ > 0 ? maps::log(eps_) : 0;
  if (kHistory && owns()) history[0] = r_;
#pragma unroll 1
  for (int t = 0; t < s_.rounds.rounds; ++t) {
    if (t > 0 || !s_.rounds.skip_first) c_ = normalised_logarithm(column_, r_, log_eps, c_);
    r_ = normalised_logarithm(row_, c_, log_eps, r_);
    if (kHistory) keep(history, t);
  }
}

template <int kN>
__device__ __forceinline__ void SinkhornQuad<kN>::reverse_logarithmic(const float* history,
                                                                      Gradient& grad) const {
  float r = r_, c = c_;
#pragma unroll 1
  for (int t = s_.rounds.rounds - 1; t >= 0; --t) {
    const float r_before = kept(history, 2 * t), c_before = t > 0 ? kept(history, 2 * t - 1) : 0;
    float all_r[kN], all_c[kN], all[kN];
    gather(r, all_r);
    gather(c, all_c);
    const float of_row = sum_of(grad.row);
    gather(of_row, all);
#pragma unroll
    for (int b = 0; b < kN; ++b) {
      grad.row[b] = fmaf(maps::exp(row_[b] + r + all_c[b]), -of_row, grad.row[b]);
      grad.column[b] = fmaf(maps::exp(column_[b] + all_r[b] + c), -all[b], grad.column[b]);
    }
    if (t == 0 && s_.rounds.skip_first) break;
    gather(r_before, all_r);
    const float of_column = sum_of(grad.column);
    gather(of_column, all);
#pragma unroll
    for (int b = 0; b < kN; ++b) {
      grad.row[b] = fmaf(maps::exp(row_[b] + r_before + all_c[b]), -all[b], grad.row[b]);
      grad.column[b] = fmaf(maps::exp(column_[b] + all_r[b] + c), -of_column, grad.column[b]);
    }
    r = r_before;
    c = c_before;
  }
}

}  // namespace hyperstreams::cuda
