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

/// 16-byte words that hold one token's weights.
template <int kN>
constexpr int kBoundaryWeightWords = (kN * (kN + 1) + 3) / 4;

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
  /// Of whole words, as store_boundary_weights leaves them in shared memory.
  __device__ __forceinline__ explicit BoundaryWeights(const uint4* words) {
    float value[kBoundaryWeightWords<kN> * 4];
#pragma unroll
    for (int w = 0; w < kBoundaryWeightWords<kN>; ++w) {
      const uint4 four = words[w];
      value[4 * w] = float_from_bits(four.x);
      value[4 * w + 1] = float_from_bits(four.y);
      value[4 * w + 2] = float_from_bits(four.z);
      value[4 * w + 3] = float_from_bits(four.w);
    }
#pragma unroll
    for (int k = 0; k < kN * kN; ++k) mix_[k] = value[k];
#pragma unroll
    for (int j = 0; j < kN; ++j) post_[j] = value[kN * kN + j];
  }
  __device__ __forceinline__ float mix(int j, int i) const { return mix_[j * kN + i]; }
  __device__ __forceinline__ float post(int j) const { return post_[j]; }
};

/// A warp leaves the weights of `kTokens` tokens from `first` on in shared memory, in
/// kBoundaryWeightWords words each. Those of absent operands are not written.
template <int kN, int kTokens>
__device__ __forceinline__ void store_boundary_weights(const MixWriteArgs& args, int64_t first,
                                                       uint4* to) {
  constexpr int kFloats = kN * (kN + 1), kRow = kBoundaryWeightWords<kN> * 4;
  constexpr int kRounds = (kTokens * kFloats + kWarpThreads - 1) / kWarpThreads;
  float* out = reinterpret_cast<float*>(to);
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    const int index = round * kWarpThreads + lane();
    const int token = index / kFloats, k = index % kFloats;
    if (token >= kTokens) continue;
    const int64_t t = first + token < args.tokens ? first + token : 0;
    if (k >= kN * kN) {
      out[token * kRow + k] =
          static_cast<const float*>(args.h_post.data)[t * args.h_post.token_stride + k - kN * kN];
    } else if (args.h_res.data) {
      out[token * kRow + k] =
          static_cast<const float*>(args.h_res.data)[t * args.h_res.token_stride + k];
    }
  }
}

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

/// X' of stream j at one channel, not yet rounded, from source(i) and y + bias, where there is y.
/// kMixes: whether there is h_res.
template <bool kMixes, int kN, bool kHeld, class Source>
__device__ __forceinline__ float written_value(const BoundaryWeights<kN, kHeld>& weights, int j,
                                               float branch, const Source& source) {
  if constexpr (!kMixes) return fmaf(weights.post(j), branch, source(j));
  float sum = weights.mix(j, 0) * source(0);
#pragma unroll
  for (int i = 1; i < kN; ++i) sum = fmaf(weights.mix(j, i), source(i), sum);
  return fmaf(weights.post(j), branch, sum);
}

/// X' of stream j at one channel, not yet rounded, from source(i) and y + bias.
template <int kN, bool kHeld, class Source>
__device__ __forceinline__ float state_value(const MixWriteArgs& args,
                                             const BoundaryWeights<kN, kHeld>& weights, int j,
                                             float branch, const Source& source) {
  if (!args.y.data) return source(j);
  return args.h_res.data ? written_value<true>(weights, j, branch, source)
                         : written_value<false>(weights, j, branch, source);
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
