// The first kernel of boundary's forward, as templates; compiled by boundary_write_<dtype>.cu.
//
//   X'[t, j, c]  = sum_i h_res[t, j, i] X[t, i, c] + h_post[t, j] (y[t, c] + bias[c]), rounded
//   sums of X':    X'[t] . W[k] for every logit k, and X'[t] . X'[t]           (where there is W)
//   u[t, c]      = sum_i weights[t, i] X'[t, i, c]                              (weights given)
//
// A warp takes 16 tokens and walks along the channels in chunks of 32, all n <= 4 streams of a
// chunk at once: lane 4g + q holds channels 8q to 8q + 7 of tokens g and g + 8, which is what the
// matrix instructions want (skinny_product.h), so X' never leaves registers between its store and
// the product. Blocks: x along the tokens, y along parts of the channels, 8 pieces each. A block is
// 8 groups of 16 tokens or, for few tokens, one group whose pieces go to 8 warps and meet in shared
// memory.
//   (2n + 1) C elements (C more for u, for which a thread reads its X' back from the nearest
//   cache), n n + n floats, and K + 1 floats per part and token; W is read once per block, as
//   fragments or, with few tokens, as it lies in memory.
//
// Deterministic: a sum runs over the chunks of a piece, streams inside; pieces are added in
// ascending order to a part; the second kernel adds the parts. That order depends on n, C and
// nothing else. Bits of X' are mix_write's, of u read's.
#pragma once

#include <type_traits>

#include "boundary_kernels.h"
#include "boundary_state.h"
#include "skinny_product.h"

namespace hyperstreams::cuda {

constexpr int kWriteThreads = 256;
constexpr int kWritePieces = 8;  // of a part

/// Compile-time numbers. Per stream, every stream has sums of its own and its logits are one tile.
template <int kN, int kTiles, bool kPerStream>
struct WriteSizes {
  static constexpr int kSums = kPerStream ? kN : 1;
  static constexpr int kSumTiles = kPerStream ? 1 : kTiles;
  static constexpr int kSumLogits = kSumTiles * kTileLogits;
  static constexpr int kRow = kSums * (kSumLogits + 1);  // logits, then squares
};

template <int kRow>
struct PieceStorage {
  float sum[kWritePieces][kGroupTokens][kRow];
};

/// Where the sum of a group's token goes in a row of PieceStorage.
template <class Sizes>
__device__ __forceinline__ int piece_place(int sum, int logit) {
  return sum * (Sizes::kSumLogits + 1) + (logit < 0 ? Sizes::kSumLogits : logit);
}

/// One sum of one row of project to scratch.
template <bool kPerStream>
__device__ __forceinline__ void write_part(const BoundaryWriteArgs& args, int64_t t, int n, int sum,
                                           int logit, float value) {
  if (t >= args.write.tokens || logit >= args.n_logits) return;
  const int64_t rows = args.write.tokens * (kPerStream ? n : 1);
  const int64_t row = kPerStream ? t * n + sum : t;
  const int place = logit < 0 ? args.n_logits : logit;
  args.sums[(blockIdx.y * rows + row) * (args.n_logits + 1) + place] = value;
}

/// The words of W for this lane, from fragments, or made of phi as it is when piece 0 is asked for.
template <int kTiles, bool kDirect, bool kWhole>
struct WriteWeights {
  const BoundaryWriteArgs& args;
  int64_t chunk;
  ChunkPosition at;
  mutable uint4 words[kFloatPieces];

  __device__ __forceinline__ WriteWeights(const BoundaryWriteArgs& a, int64_t stream,
                                          int64_t chunk_of_stream)
      : args(a), chunk(stream * a.chunks + chunk_of_stream), at(chunk, a.write.width) {}

  __device__ __forceinline__ uint4 operator()(int tile, int piece) const {
    if constexpr (kDirect) {
      if (piece == 0) {
        float value[kLaneChannels];
        load_weights<kWhole>(args.phi, args.norm_weight, args.n_logits, args.phi_streams,
                             args.write.width, tile * kTileLogits + lane() / 4, at, value);
        split_weights(value, words);
      }
      return words[piece];
    }
    return args.weights[weight_fragment(chunk, kTiles, tile, piece) + lane()];
  }
};

/// What one warp does for its 16 tokens from `first` on.
template <class S, int kN, int kTiles, bool kPerStream, bool kDirect, bool kWhole>
class WriteWarp {
 public:
  using Sizes = WriteSizes<kN, kTiles, kPerStream>;
  // Other streams than bfloat16 are split, which takes the registers.
  static constexpr bool kHeld = std::is_same_v<S, BFloat16> || kN < 3;
  using Weights = BoundaryWeights<kN, kHeld>;

  __device__ __forceinline__ WriteWarp(const BoundaryWriteArgs& args, int64_t first)
      : args_(args),
        token_(first + lane() / 4),
        weights_{{args.write, token_}, {args.write, token_ + 8}} {}

  /// Chunks [begin, end) of all streams: one piece of the sums.
  __device__ __forceinline__ void piece(int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end && chunk < args_.chunks; ++chunk) add_chunk(chunk);
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
        const WriteWeights<Sizes::kSumTiles, kDirect, kWhole> weight(args_, kPerStream ? 0 : j,
                                                                     chunk);
        auto& sums = sums_[kPerStream ? j : 0];
        // The squares first: then x itself is not needed beside its pieces.
        add_squares(x[0], sums.piece_square[0]);
        multiply_chunk(x, weight, sums.piece);
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

template <class S, int kN, int kTiles, bool kPerStream, bool kDirect, bool kWhole>
__global__ void __launch_bounds__(kWriteThreads, 1)
    boundary_write_kernel(const __grid_constant__ BoundaryWriteArgs args) {
  using Warp = WriteWarp<S, kN, kTiles, kPerStream, kDirect, kWhole>;
  using Sizes = typename Warp::Sizes;
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int64_t piece = args.chunks_per_piece, part = blockIdx.y * kWritePieces * piece;
  if (!args.pieces_by_warp) {
    const int64_t first = (int64_t{blockIdx.x} * kWritePieces + warp) * kGroupTokens;
    if (first >= args.write.tokens) return;
    Warp work(args, first);
    for (int k = 0; k < kWritePieces; ++k) work.piece(part + k * piece, part + (k + 1) * piece);
    if (args.n_logits == 0) return;
    work.take([&](int token, int sum, int logit, float value) {
      write_part<kPerStream>(args, first + token, kN, sum, logit, value);
    });
    return;
  }
  auto& storage = shared<PieceStorage<Sizes::kRow>>();
  const int64_t first = int64_t{blockIdx.x} * kGroupTokens;
  Warp work(args, first);
  work.piece(part + warp * piece, part + (warp + 1) * piece);
  if (args.n_logits == 0) return;
  work.take([&](int token, int sum, int logit, float value) {
    storage.sum[warp][token][piece_place<Sizes>(sum, logit)] = value;
  });
  block_barrier();
  for (int k = threadIdx.x; k < kGroupTokens * Sizes::kRow; k += kWriteThreads) {
    const int token = k / Sizes::kRow, place = k % Sizes::kRow;
    float sum = 0;
    for (int p = 0; p < kWritePieces; ++p) sum += storage.sum[p][token][place];
    const int of = place / (Sizes::kSumLogits + 1), logit = place % (Sizes::kSumLogits + 1);
    write_part<kPerStream>(args, first + token, kN, of, logit == Sizes::kSumLogits ? -1 : logit,
                           sum);
  }
}

template <class S, int kN, int kTiles, bool kPerStream, bool kDirect, bool kWhole>
Status launch_write(const BoundaryWriteArgs& args, const LaunchShape& shape, Stream stream) {
  return launch(boundary_write_kernel<S, kN, kTiles, kPerStream, kDirect, kWhole>, shape, stream,
                args);
}

/// Masked kernels, and those for few tokens, exist with the most tiles alone.
template <class S, int kN>
Status launch_write_streams(const BoundaryWriteArgs& args, const BoundaryPlan& plan,
                            Stream stream) {
  constexpr int kMost = kBoundaryTiles<kN>;
  const LaunchShape& shape = plan.write;
  if (plan.per_stream) {
    return plan.direct ? launch_write<S, kN, 1, true, true, false>(args, shape, stream)
                       : launch_write<S, kN, 1, true, false, true>(args, shape, stream);
  }
  if (!plan.whole_vectors) {
    return launch_write<S, kN, kMost, false, true, false>(args, shape, stream);
  }
  if (plan.direct) return launch_write<S, kN, kMost, false, true, true>(args, shape, stream);
  if constexpr (kN == 4) {
    if (plan.tiles == 3) return launch_write<S, kN, 3, false, false, true>(args, shape, stream);
  }
  return launch_write<S, kN, kMost, false, false, true>(args, shape, stream);
}

template <class S>
Status boundary_write(const BoundaryWriteArgs& args, const BoundaryPlan& plan, Stream stream) {
  switch (args.write.n_streams) {
    case 1:
      return launch_write_streams<S, 1>(args, plan, stream);
    case 2:
      return launch_write_streams<S, 2>(args, plan, stream);
    case 3:
      return launch_write_streams<S, 3>(args, plan, stream);
    default:
      return launch_write_streams<S, 4>(args, plan, stream);
  }
}

}  // namespace hyperstreams::cuda
