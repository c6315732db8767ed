// What boundary_write_staged.h does with a chunk that has come: X', its sums, u, and the sums of a
// part to scratch.
#pragma once

#include "boundary_write_staged.h"

namespace hyperstreams::cuda {

template <class S, int kN, int kTiles, bool kPerStream>
template <int kRow>
__device__ __forceinline__ void StagedWrite<S, kN, kTiles, kPerStream>::take(const uint4* now,
                                                                             Row (&x)[kN]) const {
  const MixWriteArgs& w = args_.write;
  const uint4* slot = slots(kRow);
#pragma unroll
  for (int i = 0; i < kN; ++i) {
#pragma unroll
    for (int k = 0; k < Memory::kStreamWords; ++k) {
      const uint4 four = slot[(i * Memory::kStreamWords + k) * kWarpThreads];
      x[i].word[4 * k] = four.x;
      x[i].word[4 * k + 1] = four.y;
      x[i].word[4 * k + 2] = four.z;
      x[i].word[4 * k + 3] = four.w;
    }
  }
  if (!w.y.data) return;
  slot += kN * Memory::kStreamWords * kWarpThreads;
  uint4 y[2] = {slot[0], {}};
  if (w.y_dtype == DType::kFloat32) y[1] = slot[kWarpThreads];
  float branch[kLaneChannels];
  branch_of_words(w.y_dtype, y, branch);
  if (w.bias) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 1000
    const int quarter = opaque(lane()) % 4;  // not kept: float would spill a register there
#else
    const int quarter = lane() % 4;
#endif
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const uint4 four = now[Memory::kWeightWords + quarter * 2 + k];
      branch[4 * k] += float_from_bits(four.x);
      branch[4 * k + 1] += float_from_bits(four.y);
      branch[4 * k + 2] += float_from_bits(four.z);
      branch[4 * k + 3] += float_from_bits(four.w);
    }
  }
  const BoundaryWeights<kN> weights(mixes() + (lane() / 4 + 8 * kRow) * kBoundaryWeightWords<kN>);
  if (w.h_res.data) {
    mix<true>(weights, branch, x);
  } else {
    mix<false>(weights, branch, x);
  }
}

template <class S, int kN, int kTiles, bool kPerStream>
template <bool kMixes>
__device__ __forceinline__ void StagedWrite<S, kN, kTiles, kPerStream>::mix(
    const BoundaryWeights<kN>& weights, const float (&branch)[kLaneChannels], Row (&x)[kN]) const {
#pragma unroll
  for (int pair = 0; pair < kLaneChannels / 2; ++pair) {
    float value[kN][2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int k = 2 * pair + half;
#pragma unroll
      for (int j = 0; j < kN; ++j) {
        value[j][half] =
            written_value<kMixes>(weights, j, branch[k], [&](int i) -> float { return x[i][k]; });
      }
    }
#pragma unroll
    for (int j = 0; j < kN; ++j) x[j].set_pair(pair, value[j][0], value[j][1]);
  }
}

template <class S, int kN, int kTiles, bool kPerStream>
__device__ __forceinline__ void StagedWrite<S, kN, kTiles, kPerStream>::add_chunk() {
  const MixWriteArgs& w = args_.write;
  const uint4* now = stage(chunk_);
  const bool more = chunk_ + 1 < end();
  finish_copies<0>();
  block_barrier();  // the chunk has come, and all are done with the stage before
  ++chunk_;
  x_ += kChunk;
  y_ += kChunk * branch_bytes();
  if (more) copy_stage(chunk_);
  Row x[2][kN];
  take<0>(now, x[0]);
  if (more) request<0>();
  take<1>(now, x[1]);
  if (more) request<1>();
  end_copy_group();
  const bool inside = channel(-1) < w.width;
  if (w.y.data && inside) {
    S* out = static_cast<S*>(w.x_out) + (first_token() + lane() / 4) * kN * w.width + channel(-1);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (exists(r)) {
#pragma unroll
        for (int j = 0; j < kN; ++j) {
          store_packed<true>(out + j * w.width, kLaneChannels, x[r][j]);
        }
      }
      out += 8 * kN * w.width;
    }
  }
  if (args_.read.u && inside) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (exists(r)) read(r, x[r]);
    }
  }
  if (args_.n_logits == 0) return;
  const uint4* fragments = now + lane();
  PieceSums<1, Sizes::kSumTiles> chunk;
#pragma unroll
  for (int j = 0; j < kN; ++j) {
    ChunkOfTokens<S> tokens[1];
#pragma unroll
    for (int r = 0; r < 2; ++r) tokens[0].row[r] = x[r][j];
    const int64_t first = kPerStream ? 0 : weight_fragment(j, Sizes::kSumTiles, 0, 0);
    chunk.add_chunk(tokens, [&](int tile, int piece) {
      return fragments[first + weight_fragment(0, Sizes::kSumTiles, tile, piece)];
    });
    if (!kPerStream && j < kN - 1) continue;
    add_to_sums(chunk, sums() + (kPerStream ? j : 0) * Memory::kSumWords * kWarpThreads);
    chunk = {};
  }
}

template <class S, int kN, int kTiles, bool kPerStream>
__device__ __forceinline__ void StagedWrite<S, kN, kTiles, kPerStream>::add_to_sums(
    const PieceSums<1, Sizes::kSumTiles>& chunk, uint4* words) const {
#pragma unroll
  for (int tile = 0; tile < Memory::kSumWords; ++tile) {
    uint4& word = words[tile * kWarpThreads];
    const uint4 before = word;
    float sum[4] = {float_from_bits(before.x), float_from_bits(before.y), float_from_bits(before.z),
                    float_from_bits(before.w)};
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (tile < Sizes::kSumTiles) {
        sum[k] += chunk.piece[0][tile % Sizes::kSumTiles][k];
      } else if (k < 2) {
        sum[k] += chunk.square(0, k % 2);
      }
    }
    word = {bits_from_float(sum[0]), bits_from_float(sum[1]), bits_from_float(sum[2]),
            bits_from_float(sum[3])};
  }
}

template <class S, int kN, int kTiles, bool kPerStream>
__device__ __forceinline__ void StagedWrite<S, kN, kTiles, kPerStream>::read(
    int row, const Row (&x)[kN]) const {
  const ReadArgs& args = args_.read;
  const int64_t t = first_token() + lane() / 4 + 8 * row;
  const int64_t c = channel(-1);
  const float* weights = static_cast<const float*>(args.h_pre.data) + t * args.h_pre.token_stride;
  float u[kLaneChannels];
#pragma unroll
  for (int j = 0; j < kN; ++j) {
    const float weight = weights[j];
#pragma unroll
    for (int k = 0; k < kLaneChannels; ++k) {
      u[k] = j == 0 ? weight * x[j][k] : fmaf(weight, x[j][k], u[k]);
    }
  }
  store_packed<true>(static_cast<S*>(args.u) + t * args.width + c, kLaneChannels, packed<S>(u));
}

template <class S, int kN, int kTiles, bool kPerStream>
__device__ __forceinline__ void StagedWrite<S, kN, kTiles, kPerStream>::write_sums(int part) const {
  const int64_t t = first_token() + lane() / 4;
  const int q = opaque(lane()) % 4;
#pragma unroll
  for (int s = 0; s < Memory::kSums; ++s) {
#pragma unroll
    for (int tile = 0; tile < Memory::kSumWords; ++tile) {
      uint4& word = sums()[(s * Memory::kSumWords + tile) * kWarpThreads];
      const uint32_t sum[4] = {word.x, word.y, word.z, word.w};
      word = {};
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        if (tile < Sizes::kSumTiles) {
          write_part<kPerStream>(args_, part, t + k / 2 * 8, kN, s,
                                 tile * kTileLogits + 2 * q + k % 2, float_from_bits(sum[k]));
        } else if (k < 2 && q == 0) {
          write_part<kPerStream>(args_, part, t + k * 8, kN, s, -1, float_from_bits(sum[k]));
        }
      }
    }
  }
}

}  // namespace hyperstreams::cuda
