// X' of boundary: the pending write of one token at a few channels, with the bits of mix_write.
//
//   X'[j] = sum_i h_res[j, i] X[i] + h_post[j] (y + bias), rounded     (i ascending, then y)
//
// without h_res the mix is the identity, without y X' is X itself.
#pragma once

#include "device/device.h"
#include "hyperstreams/mix_write.h"
#include "mix_write_branch.h"

namespace hyperstreams::cuda {

/// X' that is there already.
inline MixWriteArgs without_write(int64_t tokens, int n_streams, int64_t width, DType dtype,
                                  const StreamsView& x) {
  MixWriteArgs args = {};
  args.tokens = tokens;
  args.n_streams = n_streams;
  args.width = width;
  args.dtype = args.y_dtype = dtype;
  args.x = x;
  return args;
}

/// X' of n = kN streams of one token, kVector channels from c on. A token or channels that do not
/// exist are zeros, and nothing is loaded for them.
template <class S, int kN, int kVector, bool kWhole>
struct BoundaryState {
  Packed<S, kVector> source[kN];
  float branch[kVector];  // y + bias, where there is a write

  __device__ __forceinline__ void load(const MixWriteArgs& args, int64_t t, int64_t c) {
    const int64_t count = t < args.tokens ? args.width - c : 0;
    const S* x = static_cast<const S*>(args.x.data) + t * args.x.token_stride + c;
#pragma unroll
    for (int i = 0; i < kN; ++i) {
      if (!kWhole || count > 0) {
        source[i] = packed(load_vector<kWhole, kVector>(x + i * args.x.stream_stride, count));
      } else {
        source[i] = {};
      }
    }
    if (!args.y.data) return;
    if (kWhole && count <= 0) {
#pragma unroll
      for (int k = 0; k < kVector; ++k) branch[k] = 0;
      return;
    }
    const float* bias = args.bias ? static_cast<const float*>(args.bias) + c : nullptr;
    load_branch<kWhole>(args.y_dtype, args.y.data, t * args.y.token_stride + c, bias, count,
                        branch);
  }
};

/// h_res and h_post of one token; those of the first for one that does not exist. kHeld: in
/// registers; else loaded where used.
template <int kN, bool kHeld = true>
struct BoundaryWeights {
  float mix_[kN * kN], post_[kN];

  __device__ __forceinline__ BoundaryWeights(const MixWriteArgs& args, int64_t token) {
    const int64_t t = token < args.tokens ? token : 0;
    if (!args.y.data) return;
    const float* h_post =
        static_cast<const float*>(args.h_post.data) + t * args.h_post.token_stride;
#pragma unroll
    for (int j = 0; j < kN; ++j) post_[j] = h_post[j];
    if (!args.h_res.data) return;
    const float* h_res = static_cast<const float*>(args.h_res.data) + t * args.h_res.token_stride;
#pragma unroll
    for (int k = 0; k < kN * kN; ++k) mix_[k] = h_res[k];
  }
  __device__ __forceinline__ float mix(int j, int i) const { return mix_[j * kN + i]; }
  __device__ __forceinline__ float post(int j) const { return post_[j]; }
};

template <int kN>
struct BoundaryWeights<kN, false> {
  const float *h_res, *h_post;

  __device__ __forceinline__ BoundaryWeights(const MixWriteArgs& args, int64_t token) {
    const int64_t t = token < args.tokens ? token : 0;
    h_res = static_cast<const float*>(args.h_res.data) + t * args.h_res.token_stride;
    h_post = static_cast<const float*>(args.h_post.data) + t * args.h_post.token_stride;
  }
  __device__ __forceinline__ float mix(int j, int i) const { return h_res[j * kN + i]; }
  __device__ __forceinline__ float post(int j) const { return h_post[j]; }
};

/// X' of stream j at one channel, not yet rounded, from source(i) and y + bias.
template <int kN, bool kHeld, class Source>
__device__ __forceinline__ float state_value(const MixWriteArgs& args,
                                             const BoundaryWeights<kN, kHeld>& weights, int j,
                                             float branch, const Source& source) {
  float sum = source(j);
  if (!args.y.data) return sum;
  if (args.h_res.data) {
    sum = weights.mix(j, 0) * source(0);
#pragma unroll
    for (int i = 1; i < kN; ++i) sum = fmaf(weights.mix(j, i), source(i), sum);
  }
  return fmaf(weights.post(j), branch, sum);
}

/// Stream j of X'.
template <class S, int kN, int kVector, bool kWhole, bool kHeld>
__device__ __forceinline__ Packed<S, kVector> state_stream(
    const MixWriteArgs& args, const BoundaryState<S, kN, kVector, kWhole>& state,
    const BoundaryWeights<kN, kHeld>& weights, int j) {
  if (!args.y.data) return state.source[j];
  float sum[kVector];
#pragma unroll
  for (int k = 0; k < kVector; ++k) {
    sum[k] =
        state_value(args, weights, j, state.branch[k], [&](int i) { return state.source[i][k]; });
  }
  return packed<S>(sum);
}

}  // namespace hyperstreams::cuda
