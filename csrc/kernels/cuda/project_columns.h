// What a lane of project's backward reads and writes: its vectors of X and grad_x, straight or by
// way of shared memory, its channels of W, and the statistic's factors. Which columns and tokens
// stands in project_backward.cu, how a lane holds them in skinny_gradient.h.
#pragma once

#include "device/device.h"
#include "hyperstreams/project.h"
#include "project_statistic.h"
#include "skinny_gradient.h"

namespace hyperstreams::cuda {

/// min(count, most) as an int, for comparisons in loops.
__device__ __forceinline__ int at_most(int64_t count, int most) {
  return count < most ? static_cast<int>(count) : most;
}

/// 16 tokens of every warp's column; each thread reads what it wrote.
struct StagedTokens {
  uint4 token[kLaneTokens][kGradientThreads];

  template <class S>
  __device__ __forceinline__ void take(StepTokens<S>& to) const {
#pragma unroll
    for (int i = 0; i < kLaneTokens; ++i) {
      const uint4 x = token[i][threadIdx.x];
      to.token[i].word[0] = x.x;
      to.token[i].word[1] = x.y;
      to.token[i].word[2] = x.z;
      to.token[i].word[3] = x.w;
    }
  }
};

/// A lane's vectors of one column.
template <class S, bool kWhole>
struct ColumnOfX {
  static constexpr int kVector = Vector<S>::kSize;
  const ProjectBackwardArgs& args;
  int64_t stream, c;
  int left;    // channels from c on, at most a vector; none beyond the last column
  const S* x;  // the lane's vector of token lane % 4 * 4
  S* grad_x;

  __device__ __forceinline__ ColumnOfX(const ProjectBackwardArgs& a, int64_t column) : args(a) {
    const Column at(column, a.shape.width, kVector);
    stream = at.stream;
    c = at.c;
    left = stream < a.shape.n_streams ? at_most(a.shape.width - c, kVector) : 0;
    const int64_t t = lane() % 4 * kLaneTokens;
    x = static_cast<const S*>(a.x.data) + t * a.x.token_stride + stream * a.x.stream_stride + c;
    grad_x = static_cast<S*>(a.grad_x) + (t * a.shape.n_streams + stream) * a.shape.width + c;
  }

  /// The lane's tokens among [first, end), its own counted from first.
  __device__ __forceinline__ static int tokens_left(int64_t first, int64_t end) {
    return at_most(end - first, kStepTokens) - lane() % 4 * kLaneTokens;
  }

  __device__ __forceinline__ void load(int64_t first, int64_t end, StepTokens<S>& to) const {
    const S* row = x + first * args.x.token_stride;
    const int tokens = tokens_left(first, end);
#pragma unroll
    for (int i = 0; i < kLaneTokens; ++i) {
      to.token[i] = load_packed<kWhole, kVector>(row, i < tokens ? left : 0);
      row += args.x.token_stride;
    }
  }

  /// The same to this thread's place in shared memory, at the latest when the copies of the group
  /// that the caller ends have come.
  __device__ __forceinline__ void copy(int64_t first, int64_t end, StagedTokens& to) const {
    const S* row = x + first * args.x.token_stride;
    const int tokens = tokens_left(first, end);
#pragma unroll
    for (int i = 0; i < kLaneTokens; ++i) {
      uint4& place = to.token[i][threadIdx.x];
      if constexpr (kWhole) {
        if (i < tokens && left > 0) {
          copy_async(&place, aligned<const uint4>(row));
        } else {
          place = {0, 0, 0, 0};
        }
      } else {
        const auto vector = load_packed<false, kVector>(row, i < tokens ? left : 0);
        place = {vector.word[0], vector.word[1], vector.word[2], vector.word[3]};
      }
      row += args.x.token_stride;
    }
  }

  /// This lane's channels of W; zeros from logit K on.
  __device__ __forceinline__ void load_weight(int64_t logit, float (&to)[kVector]) const {
    const int64_t d = stream * args.shape.width + c;
    const bool exists = logit < args.shape.n_logits && left > 0;
#pragma unroll
    for (int k = 0; k < kVector; ++k) to[k] = 0;
    if (!exists) return;
    const int64_t features = args.shape.n_streams * args.shape.width;
    load_floats<kWhole>(static_cast<const float*>(args.phi) + logit * features + d, left, to);
    if (!args.norm_weight) return;
    float scale[kVector];
    load_floats<kWhole>(static_cast<const float*>(args.norm_weight) + d, left, scale);
#pragma unroll
    for (int k = 0; k < kVector; ++k) to[k] *= scale[k];
  }

  __device__ __forceinline__ void store(int64_t first, int64_t end,
                                        const StepTokens<S>& grad) const {
    if (left <= 0) return;
    const int64_t stride = args.shape.n_streams * args.shape.width;
    S* row = grad_x + first * stride;
    const int tokens = tokens_left(first, end);
#pragma unroll
    for (int i = 0; i < kLaneTokens; ++i) {
      if (i < tokens) store_packed<kWhole>(row, left, grad.token[i]);
      row += stride;
    }
  }
};

/// Two channels of grad_x of the lane's token i: from g W and the statistic's part, rounded.
template <class S>
__device__ __forceinline__ void set_grad(const StepTokens<S>& v, float factor, int i, int channel,
                                         float first, float second, StepTokens<S>& grad) {
  const Packed<S, Vector<S>::kSize>& of = v.token[i];
  const float pair[2] = {fmaf(factor, of[channel], first), fmaf(factor, of[channel + 1], second)};
  const Packed<S, 2> rounded = packed<S>(pair);
#pragma unroll
  for (int w = 0; w < Packed<S, 2>::kWords; ++w) {
    grad.token[i].word[channel / 2 * Packed<S, 2>::kWords + w] = rounded.word[w];
  }
}

/// What the statistic's factor of one of 16 tokens is made of, on its way from memory.
class FactorLoader {
 public:
  __device__ __forceinline__ void load(const ProjectBackwardArgs& args, int64_t first,
                                       int64_t end) {
    const int64_t t = first + threadIdx.x;
    if (threadIdx.x >= kStepTokens || t >= end) return;
    inv_rms_ = static_cast<const float*>(args.inv_rms)[t];
    grad_inv_rms_ = static_cast<const float*>(args.grad_inv_rms)[t];
  }

  __device__ __forceinline__ void store(const ProjectBackwardArgs& args,
                                        float (&factor)[kStepTokens]) const {
    if (threadIdx.x >= kStepTokens) return;
    const auto features = static_cast<float>(args.shape.n_streams * args.shape.width);
    factor[threadIdx.x] = statistic_factor(features, static_cast<float>(args.eps),
                                           args.eps_position, inv_rms_, grad_inv_rms_);
  }

 private:
  // Of a token beyond the last, any: its grad_x is not written.
  float inv_rms_ = 1, grad_inv_rms_ = 0;
};

}  // namespace hyperstreams::cuda
