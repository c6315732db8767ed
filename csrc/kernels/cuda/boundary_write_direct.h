// boundary_write.h for few tokens, and for rows that do not consist of whole vectors: every warp
// for itself, phi read as it lies in memory.
#pragma once

#include <type_traits>

#include "boundary_kernels.h"
#include "boundary_state.h"
#include "boundary_write_sums.h"
#include "skinny_product.h"

namespace hyperstreams::cuda {

constexpr int kWriteThreads = 256;
constexpr int kWriteWarps = kWriteThreads / kWarpThreads;

template <int kRow>
struct ChunkStorage {
  float sum[kWriteWarps][kGroupTokens][kRow];
};

/// Where the sum of a group's token goes in a row of ChunkStorage.
template <class Sizes>
__device__ __forceinline__ int sum_place(int sum, int logit) {
  return sum * (Sizes::kSumLogits + 1) + (logit < 0 ? Sizes::kSumLogits : logit);
}

/// The words of W for this lane, made of phi as it is when the first of a tile are asked for.
template <bool kWhole>
struct DirectWeights {
  const BoundaryWriteArgs& args;
  ChunkPosition at;
  mutable uint4 words[kFloatPieces];

  __device__ __forceinline__ DirectWeights(const BoundaryWriteArgs& a, int64_t stream,
                                           int64_t chunk)
      : args(a), at(stream * a.chunks + chunk, a.write.width) {}

  __device__ __forceinline__ uint4 operator()(int tile, int piece) const {
    if (piece == kFloatPieces - 1) {
      float value[kLaneChannels];
      load_weights<kWhole>(args.phi, args.norm_weight, args.n_logits, args.phi_streams,
                           args.write.width, tile * kTileLogits + lane() / 4, at, value);
      split_weights(value, words);
    }
    return words[piece];
  }
};

/// What one warp does for its 16 tokens from `first` on.
template <class S, int kN, int kTiles, bool kPerStream, bool kWhole>
class DirectWrite {
 public:
  using Sizes = WriteSizes<kN, kTiles, kPerStream>;
  // Other streams than bfloat16 are split, which takes the registers.
  static constexpr bool kHeld = std::is_same_v<S, BFloat16> || kN < 3;
  using Weights = BoundaryWeights<kN, kHeld>;

  __device__ __forceinline__ DirectWrite(const BoundaryWriteArgs& args, int64_t first)
      : args_(args),
        token_(first + lane() / 4),
        weights_{{args.write, token_}, {args.write, token_ + 8}} {}

  /// Adds a chunk of all streams, where there is one.
  __device__ __forceinline__ void add(int64_t chunk, int64_t end) {
    if (chunk < end) add_chunk(chunk);
#pragma unroll
    for (int s = 0; s < Sizes::kSums; ++s) sums_[s].finish_piece();
  }

  /// Calls write(token of the group, sum, logit, value) for what this lane holds.
  template <class Write>
  __device__ __forceinline__ void take(const Write& write) {
#pragma unroll
    for (int s = 0; s < Sizes::kSums; ++s) {
      sums_[s].take([&](int token, int logit, float value) { write(token, s, logit, value); });
    }
  }

 private:
  __device__ __forceinline__ void add_chunk(int64_t chunk) {
    const MixWriteArgs& w = args_.write;
    // Opaque, so that addresses are computed here and do not stay in registers between chunks.
    const int64_t c = opaque(chunk * kChunk + lane() % 4 * kLaneChannels), left = w.width - c;
    const int64_t first = opaque(token_), token[2] = {first, first + 8};
    const Weights weights[2] = {weights_of(token[0], 0), weights_of(token[1], 1)};
    BoundaryState<S, kN, kLaneChannels, kWhole> state[2];
    state[0].load(w, token[0], c);
    state[1].load(w, token[1], c);
#pragma unroll
    for (int j = 0; j < kN; ++j) {
      ChunkOfTokens<S> x[1];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        x[0].row[r] = state_stream(w, state[r], weights[r], j);
        const bool exists = token[r] < w.tokens && left > 0;
        if (w.y.data && exists) {
          S* out = static_cast<S*>(w.x_out) + (token[r] * kN + j) * w.width + c;
          store_packed<kWhole>(out, left, x[0].row[r]);
        }
      }
      if (args_.n_logits > 0) {
        const DirectWeights<kWhole> weight(args_, kPerStream ? 0 : j, chunk);
        sums_[kPerStream ? j : 0].add_chunk_in_turn(x, weight);
      }
    }
    if (!args_.read.u || left <= 0) return;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (token[r] < w.tokens) read(token[r], c, left);
    }
  }

  /// u at this lane's channels, from X' as it has just been stored by this thread.
  __device__ __forceinline__ void read(int64_t t, int64_t c, int64_t left) const {
    const ReadArgs& args = args_.read;
    const S* x = static_cast<const S*>(args.x.data) + t * args.x.token_stride + c;
    const float* weights = static_cast<const float*>(args.h_pre.data) + t * args.h_pre.token_stride;
    float u[kLaneChannels];
#pragma unroll
    for (int j = 0; j < kN; ++j) {
      float value[kLaneChannels];
      load_floats<kWhole>(x + j * args.x.stream_stride, left, value);
#pragma unroll
      for (int k = 0; k < kLaneChannels; ++k) {
        u[k] = j == 0 ? weights[j] * value[k] : fmaf(weights[j], value[k], u[k]);
      }
    }
    store_floats<kWhole>(static_cast<S*>(args.u) + t * args.width + c, left, u);
  }

  /// Those held, or pointers to them.
  __device__ __forceinline__ Weights weights_of(int64_t token, int row) const {
    if constexpr (kHeld) {
      return weights_[row];
    } else {
      return Weights(args_.write, token);
    }
  }

  const BoundaryWriteArgs& args_;
  int64_t token_;  // and the one 8 further
  Weights weights_[2];
  SkinnySums<1, Sizes::kSumTiles> sums_[Sizes::kSums];
};

/// A block is 8 groups of 16 tokens or, with chunks_by_warp, one group: its warps take a chunk
/// each, whose sums meet in shared memory, and then the next 8.
template <class S, int kN, int kTiles, bool kPerStream, bool kWhole>
__global__ void __launch_bounds__(kWriteThreads, 1)
    boundary_write_direct_kernel(const __grid_constant__ BoundaryWriteArgs args) {
  using Warp = DirectWrite<S, kN, kTiles, kPerStream, kWhole>;
  using Sizes = typename Warp::Sizes;
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int64_t part = blockIdx.y, begin = part * args.chunks_per_part;
  const int64_t rest = args.chunks - begin;
  const int64_t end = begin + (rest < args.chunks_per_part ? rest : args.chunks_per_part);
  if (!args.chunks_by_warp) {
    const int64_t first = (int64_t{blockIdx.x} * kWriteWarps + warp) * kGroupTokens;
    if (first >= args.write.tokens) return;
    Warp work(args, first);
    for (int64_t chunk = begin; chunk < end; ++chunk) work.add(chunk, end);
    if (args.n_logits == 0) return;
    work.take([&](int token, int sum, int logit, float value) {
      write_part<kPerStream>(args, part, first + token, kN, sum, logit, value);
    });
    return;
  }
  auto& storage = shared<ChunkStorage<Sizes::kRow>>();
  const int64_t first = int64_t{blockIdx.x} * kGroupTokens;
  constexpr int kPlaces = kGroupTokens * Sizes::kRow;
  constexpr int kThreadPlaces = (kPlaces + kWriteThreads - 1) / kWriteThreads;
  float sum[kThreadPlaces] = {};
  Warp work(args, first);
  for (int64_t chunk = begin; chunk < end; chunk += kWriteWarps) {
    work.add(chunk + warp, end);
    if (args.n_logits == 0) continue;
    work.take([&](int token, int of, int logit, float value) {
      storage.sum[warp][token][sum_place<Sizes>(of, logit)] = value;
    });
    block_barrier();
#pragma unroll
    for (int k = 0; k < kThreadPlaces; ++k) {
      const int at = k * kWriteThreads + static_cast<int>(threadIdx.x);
      if (at >= kPlaces) continue;
      for (int w = 0; w < kWriteWarps && chunk + w < end; ++w) {
        sum[k] += storage.sum[w][at / Sizes::kRow][at % Sizes::kRow];
      }
    }
    block_barrier();
  }
  if (args.n_logits == 0) return;
#pragma unroll
  for (int k = 0; k < kThreadPlaces; ++k) {
    const int at = k * kWriteThreads + static_cast<int>(threadIdx.x), place = at % Sizes::kRow;
    if (at >= kPlaces) continue;
    const int of = place / (Sizes::kSumLogits + 1), logit = place % (Sizes::kSumLogits + 1);
    write_part<kPerStream>(args, part, first + at / Sizes::kRow, kN, of,
                           logit == Sizes::kSumLogits ? -1 : logit, sum[k]);
  }
}

}  // namespace hyperstreams::cuda
