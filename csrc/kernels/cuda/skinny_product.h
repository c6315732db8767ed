// The skinny product of project and boundary: tokens [T, D] times weights [K, D] with few logits K,
// on tensor cores, and the sum of squares of the tokens on the way.
//
// The D = n C channels of a token come in chunks of 32 channels of one stream (the last of a stream
// padded with zeros), in order of streams; 8 chunks are a piece of the sum. A warp takes 16 tokens
// times 8 logits at a time; lane 4g + q holds, of every chunk, channels 8q to 8q + 7 of tokens g
// and g + 8: as they lie in memory, 16 bytes of bfloat16. Which of them meet in a matrix
// instruction is free, as long as both operands agree.
//
// Numbers are split into bfloat16 pieces (device/pieces.h), so that bfloat16 streams cost 3
// instructions, float16 ones 5 and float ones 6, smallest products first. Root mean square error of
// a logit against float64, in units of the logits' own, normal X and phi, D = 3072 | 16384, tensor
// cores emulated as cutting every sum towards zero:
//
//   one product (bfloat16 phi)      1.8e-3 | 1.4e-3       a float fma chain        1e-6 | 2.4e-6
//   two (phi in two pieces)         2.5e-6 | 2.6e-6       TF32, phi in two         1.4e-7 | 1.5e-7
//   three, five or six, as here     0.9e-7 | 1.2e-7       TF32 three times, float  1.7e-7 | 1.6e-7
//   as here, tensor core adds all   1.5e-5 | 7e-5
//
// TF32 instructions cost twice as much for the same channels.
//
// Order of a sum: a chunk's products on the tensor core; then, in float, the chunks of a piece
// ascending, the pieces of a segment ascending, the segments. It depends on D alone, never on the
// number of tokens, on how many of them a block takes, or on how the work is split over blocks.
#pragma once

#include "device/device.h"

namespace hyperstreams::cuda {

// Channels of a chunk, those of one lane, and logits of a tile.
constexpr int kChunk = 32;
constexpr int kLaneChannels = 8;
constexpr int kTileLogits = 8;
// Tokens of a group.
constexpr int kGroupTokens = 16;

/// Fragments [chunk][tile][piece][lane] of the weights, `tiles` to a chunk: the words of a lane are
/// channels 8q to 8q + 7 of logit 8 tile + g.
__device__ __forceinline__ constexpr int64_t weight_fragment(int64_t chunk, int64_t tiles,
                                                             int64_t tile, int piece) {
  return ((chunk * tiles + tile) * kFloatPieces + piece) * kWarpThreads;
}

/// This lane's part of a chunk of 16 tokens.
template <class S>
struct ChunkOfTokens {
  Packed<S, kLaneChannels> row[2];  // of tokens g and g + 8
};

/// The chunk at which a walk over the streams stands.
struct ChunkPosition {
  int64_t stream, c;
  __device__ __forceinline__ ChunkPosition(int64_t chunk, int64_t width) {
    const int64_t per_stream = (width + kChunk - 1) / kChunk;
    stream = chunk / per_stream;
    c = chunk % per_stream * kChunk;
  }
  __device__ __forceinline__ void advance(int64_t width) {
    c += kChunk;
    if (c >= width) {
      c = 0;
      ++stream;
    }
  }
};

/// Channels from c on of a row of `width`; zeros beyond it. kWhole: width is a multiple of 8.
template <bool kWhole, class S>
__device__ __forceinline__ Vector<S, kLaneChannels> load_channels(const S* row, int64_t c,
                                                                  int64_t width) {
  if (kWhole && c >= width) return {};
  return load_vector<kWhole, kLaneChannels>(row + c, width - c);
}

/// sum[group][tile] += the products of a chunk of tokens and of weights, whose fragments
/// weight(tile, piece) returns. The tensor core adds within the chunk alone: it cuts every sum
/// towards zero.
template <class S, int kGroups, int kTiles, class Weight>
__device__ __forceinline__ void multiply_chunk(const ChunkOfTokens<S> (&x)[kGroups],
                                               const Weight& weight,
                                               float (&sum)[kGroups][kTiles][4]) {
  constexpr int kWords = kLaneChannels / 2;
  uint32_t token[kGroups][2][kPieces<S>][kWords];
#pragma unroll
  for (int group = 0; group < kGroups; ++group) {
#pragma unroll
    for (int r = 0; r < 2; ++r) split(x[group].row[r], token[group][r]);
  }
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    uint4 w[kFloatPieces];
#pragma unroll
    for (int p = 0; p < kFloatPieces; ++p) w[p] = weight(tile, p);
    float products[kGroups][4] = {};
#pragma unroll
    for (int order = kFloatPieces - 1; order >= 0; --order) {
#pragma unroll
      for (int p = 0; p < kPieces<S>; ++p) {
        if (p > order) continue;
        const uint32_t b[2][2] = {{w[order - p].x, w[order - p].y},
                                  {w[order - p].z, w[order - p].w}};
#pragma unroll
        for (int half = 0; half < 2; ++half) {
#pragma unroll
          for (int group = 0; group < kGroups; ++group) {
            const auto& g = token[group][0][p];
            const auto& g8 = token[group][1][p];
            const uint32_t a[4] = {g[2 * half], g8[2 * half], g[2 * half + 1], g8[2 * half + 1]};
            multiply_add(products[group], a, b[half]);
          }
        }
      }
    }
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
#pragma unroll
      for (int k = 0; k < 4; ++k) sum[group][tile][k] += products[group][k];
    }
  }
}

/// square[r] += this lane's squares of row r.
template <class S>
__device__ __forceinline__ void add_squares(const ChunkOfTokens<S>& x, float (&square)[2]) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
#pragma unroll
    for (int k = 0; k < kLaneChannels; ++k) {
      const float value = x.row[r][k];
      square[r] = fmaf(value, value, square[r]);
    }
  }
}

/// Logits and squares of 16 kGroups tokens: sums of the piece in work, and of what is finished.
template <int kGroups, int kTiles>
struct SkinnySums {
  float piece[kGroups][kTiles][4], done[kGroups][kTiles][4];
  float piece_square[kGroups][2], done_square[kGroups][2];

  __device__ __forceinline__ SkinnySums() {
    clear(piece, piece_square);
    clear(done, done_square);
  }

  __device__ __forceinline__ static void clear(float (&sum)[kGroups][kTiles][4],
                                               float (&square)[kGroups][2]) {
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
        for (int k = 0; k < 4; ++k) sum[group][tile][k] = 0;
      }
      square[group][0] = square[group][1] = 0;
    }
  }

  template <class S, class Weight>
  __device__ __forceinline__ void add_chunk(const ChunkOfTokens<S> (&x)[kGroups],
                                            const Weight& weight) {
    multiply_chunk(x, weight, piece);
#pragma unroll
    for (int group = 0; group < kGroups; ++group) add_squares(x[group], piece_square[group]);
  }

  /// Adds the piece to what is finished and begins another. Every lane takes part; the squares of a
  /// token are then the same in its four lanes.
  __device__ __forceinline__ void finish_piece() {
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
        for (int k = 0; k < 4; ++k) done[group][tile][k] += piece[group][tile][k];
      }
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float sum = piece_square[group][r];
        sum += warp_shuffle_xor(sum, 1);
        sum += warp_shuffle_xor(sum, 2);
        done_square[group][r] += sum;
      }
    }
    clear(piece, piece_square);
  }

  /// Calls write(token, logit, value) for what this lane holds of the finished sums: token in
  /// [0, 16 kGroups), logit in [0, 8 kTiles), or -1 for the sum of squares; then clears them.
  template <class Write>
  __device__ __forceinline__ void take(const Write& write) {
    const int g = lane() / 4, q = lane() % 4;
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int token = group * kGroupTokens + g + 8 * r;
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
          const int logit = tile * kTileLogits + 2 * q;
          write(token, logit, done[group][tile][2 * r]);
          write(token, logit + 1, done[group][tile][2 * r + 1]);
        }
        if (q == 0) write(token, -1, done_square[group][r]);
      }
    }
    clear(done, done_square);
  }
};

/// Words of weights [kFloatPieces] from values.
__device__ __forceinline__ void split_weights(const float (&value)[kLaneChannels],
                                              uint4 (&words)[kFloatPieces]) {
  uint32_t pair[kLaneChannels / 2][kFloatPieces];
#pragma unroll
  for (int w = 0; w < kLaneChannels / 2; ++w) split(value[2 * w], value[2 * w + 1], pair[w]);
#pragma unroll
  for (int p = 0; p < kFloatPieces; ++p) {
    words[p] = {pair[0][p], pair[1][p], pair[2][p], pair[3][p]};
  }
}

/// Channels 8q to 8q + 7 of a chunk of norm_weight * phi's row `logit`: [K, n C] contiguous. Zeros
/// beyond n, C and K. norm_weight may be null.
template <bool kWhole>
__device__ __forceinline__ void load_weights(const float* phi, const float* norm_weight,
                                             int64_t n_logits, int64_t n_streams, int64_t width,
                                             int64_t logit, const ChunkPosition& at,
                                             float (&value)[kLaneChannels]) {
  const int64_t c = at.c + lane() % 4 * kLaneChannels;
  const bool exists = logit < n_logits && at.stream < n_streams;
  const int64_t row_width = exists ? width : 0;
  const int64_t row = at.stream * width;
  const auto loaded = load_channels<kWhole>(phi + logit * n_streams * width + row, c, row_width);
#pragma unroll
  for (int k = 0; k < kLaneChannels; ++k) value[k] = loaded.element[k];
  if (norm_weight) {
    const auto scale = load_channels<kWhole>(norm_weight + row, c, row_width);
#pragma unroll
    for (int k = 0; k < kLaneChannels; ++k) value[k] *= scale.element[k];
  }
}

}  // namespace hyperstreams::cuda
