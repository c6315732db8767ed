// What a lane of boundary_gradients.h does for 4 channels of one token: X', G, mix_write's adjoint
// and its share of the sums over channels.
#pragma once

#include "boundary_gradients_block.h"

namespace hyperstreams::cuda {

template <class S, int kN, int kTiles, bool kWhole>
__device__ __forceinline__ void GradientBlock<S, kN, kTiles, kWhole>::tokens(const Tile& tile,
                                                                             const Stage& stage) {
  if (!args_.state.y.data) {
    complete<false, false>(tile, stage);
  } else if (!args_.state.h_res.data) {
    complete<true, false>(tile, stage);
  } else {
    complete<true, true>(tile, stage);
  }
}

template <class S, int kN, int kTiles, bool kWhole>
template <class T>
__device__ __forceinline__ Packed<T, kQuadChannels> GradientBlock<S, kN, kTiles, kWhole>::quad_of(
    const uint4* row, unsigned quad) {
  using Word = typename VectorWords<T, kQuadChannels>::Word;
  const Word word = aligned<const Word>(row)[quad];
  Packed<T, kQuadChannels> words;
  memcpy(words.word, &word, sizeof(word));
  return words;
}

template <class S, int kN, int kTiles, bool kWhole>
__device__ __forceinline__ void GradientBlock<S, kN, kTiles, kWhole>::load_branch(
    const uint4* row, unsigned quad, bool exists, float (&to)[kQuadChannels]) const {
  const auto unpack = [&](const auto& words) {
#pragma unroll
    for (int k = 0; k < kQuadChannels; ++k) to[k] = words[k];
  };
  if (args_.state.y_dtype == kDType) {
    unpack(quad_of<S>(row, quad));
  } else if (args_.state.y_dtype == DType::kFloat32) {
    unpack(quad_of<float>(row, quad));
  } else if (args_.state.y_dtype == DType::kBFloat16) {
    unpack(quad_of<BFloat16>(row, quad));
  } else {
    unpack(quad_of<Float16>(row, quad));
  }
  const float4 bias = storage_.bias[quad];
  const float add[] = {bias.x, bias.y, bias.z, bias.w};
#pragma unroll
  for (int k = 0; k < kQuadChannels; ++k) to[k] = exists ? to[k] + add[k] : 0;
}

template <class S, int kN, int kTiles, bool kWhole>
template <bool kWrites, bool kMixes>
__device__ __forceinline__ void GradientBlock<S, kN, kTiles, kWhole>::complete(const Tile& tile,
                                                                               const Stage& stage) {
  const MixWriteArgs& w = args_.state;
  const unsigned rank = own_rank(), token = rank / kSlabLanes, quad = rank % kSlabLanes;
  const int left = channels_ - static_cast<int>(quad * kQuadChannels);
  const bool is_token = static_cast<int>(token) < tile.count, exists = is_token && left > 0;
  float x[kN][kQuadChannels], branch[kQuadChannels] = {}, grad_u[kQuadChannels];
#pragma unroll
  for (int i = 0; i < kN; ++i) {
    const auto words = quad_of<S>(stage.x[i][token], quad);
#pragma unroll
    for (int k = 0; k < kQuadChannels; ++k) x[i][k] = words[k];
  }
  if (kWrites) load_branch(stage.y[token], quad, exists, branch);
  const auto packed_grad_u = quad_of<S>(stage.grad_u[token], quad);
#pragma unroll
  for (int k = 0; k < kQuadChannels; ++k) grad_u[k] = packed_grad_u[k];
  float grad_x[kN][kQuadChannels], grad_y[kQuadChannels] = {};
  TokenSums<kN> sums;
  const uint4* row = stage.group + token / kMatrixSize * args_.group_vectors +
                     token % kMatrixSize * (Storage::kRowVectors / kMatrixSize);
#pragma unroll
  for (int j = 0; j < kN; ++j) {
    const StreamWeights weights(row, j);
    float gradient[kQuadChannels], sum[kN + 2] = {};
#pragma unroll
    for (int k = 0; k < kQuadChannels; ++k) {  // X', as mix_write rounds it
      float value = kMixes ? weights.mix(0) * x[0][k] : x[j][k];
#pragma unroll
      for (int i = 1; kMixes && i < kN; ++i) value = fmaf(weights.mix(i), x[i][k], value);
      gradient[k] = kWrites ? fmaf(weights.post(), branch[k], value) : value;
    }
    const auto state = packed<S>(gradient);
    keep(state, storage_.state[j][token], quad);
    Packed<S, kQuadChannels> beside{};
    if (kWrites) beside = quad_of<S>(stage.beside[j][token], quad);
    float product[kQuadChannels] = {};
    if (args_.n_logits > 0) {
      const float4 words = storage_.product[token][j * kSlabLanes + quad];
      product[0] = words.x;
      product[1] = words.y;
      product[2] = words.z;
      product[3] = words.w;
    }
#pragma unroll
    for (int k = 0; k < kQuadChannels; ++k) {
      const float of_read =
          kWrites ? fmaf(weights.read(), grad_u[k], beside[k]) : weights.read() * grad_u[k];
      gradient[k] = fmaf(weights.factor(), state[k], of_read) + product[k];
      sum[kN + 1] = fmaf(grad_u[k], state[k], sum[kN + 1]);
      if (kWrites) {
        grad_y[k] = fmaf(weights.post(), gradient[k], grad_y[k]);
        sum[kN] = fmaf(gradient[k], branch[k], sum[kN]);
      }
      if (!kMixes) grad_x[j][k] = gradient[k];
#pragma unroll
      for (int i = 0; kMixes && i < kN; ++i) {
        grad_x[i][k] =
            j == 0 ? weights.mix(i) * gradient[k] : fmaf(weights.mix(i), gradient[k], grad_x[i][k]);
        sum[i] = fmaf(gradient[k], x[i][k], sum[i]);
      }
    }
    sums.add(j, sum);
  }
  const int64_t c = first_c_ + quad * kQuadChannels;
  if (exists) {
    const int64_t row_c = tile.first * w.width + token * w.width;
    S* to = static_cast<S*>(args_.grad_x) + kN * row_c + c;
#pragma unroll
    for (int i = 0; i < kN; ++i) {
      store_floats<kWhole>(to, left, grad_x[i]);
      to += w.width;
    }
    if (kWrites) {
      store_branch<kWhole>(w.y_dtype, args_.grad_y, row_c + c, left, grad_y);
      if (args_.bias_partials) {
        float4& bias = storage_.grad_bias[threadIdx.x];
        bias.x += grad_y[0];
        bias.y += grad_y[1];
        bias.z += grad_y[2];
        bias.w += grad_y[3];
      }
    }
  }
  if (!args_.sums) return;
  float* to = args_.sums + (blockIdx.x * w.tokens + tile.first) * kSums;
  sums.finish([&](int k, float value) {
    if (is_token && k < kSums) to[token * kSums + k] = value;
  });
}

template <class S, int kN, int kTiles, bool kWhole>
__device__ __forceinline__ void GradientBlock<S, kN, kTiles, kWhole>::keep(
    const Packed<S, kQuadChannels>& words, uint4* row, unsigned quad) {
  using Word = typename VectorWords<S, kQuadChannels>::Word;
  Word word;
  memcpy(&word, words.word, sizeof(word));
  aligned<Word>(row)[quad] = word;
}

template <class S, int kN, int kTiles, bool kWhole>
__device__ __forceinline__ void GradientBlock<S, kN, kTiles, kWhole>::write_bias() {
  float* kept = aligned<float>(&storage_.product[0][0]);  // [warp][channel]
  const int of_warp = static_cast<int>(threadIdx.x) / kWarpThreads * kSlabChannels;
  const int quad = static_cast<int>(threadIdx.x) % kSlabLanes;
  const float4& own = storage_.grad_bias[threadIdx.x];
  const float bias[kQuadChannels] = {own.x, own.y, own.z, own.w};
#pragma unroll
  for (int k = 0; k < kQuadChannels; ++k) {
    const float sum = bias[k] + warp_shuffle_xor(bias[k], kSlabLanes);
    if (lane() < kSlabLanes) kept[of_warp + quad * kQuadChannels + k] = sum;
  }
  block_barrier();
  const int c = static_cast<int>(threadIdx.x);
  if (c >= kSlabChannels || first_c_ + c >= args_.state.width) return;
  float sum = kept[c];
  for (int warp = 1; warp < kWarps; ++warp) sum += kept[warp * kSlabChannels + c];
  args_.bias_partials[blockIdx.y * args_.state.width + first_c_ + c] = sum;
}

}  // namespace hyperstreams::cuda
