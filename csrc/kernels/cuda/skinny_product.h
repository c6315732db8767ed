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
// TF32 instructions cost twice as much for the same channels. Squares of bfloat16 tokens are the
// diagonal of the tokens times themselves, at 8 of the smaller instructions; those of the others
// are float fma.
//
// Order of project's sums: a chunk's products on the tensor core; then, in float, the chunks of a
// piece ascending, the pieces of a segment ascending, the segments. It depends on D alone, never on
// the number of tokens, on how many of them a block takes, or on how the work is split over blocks.
#pragma once

#include <type_traits>
#include <utility>

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

/// 16 tokens of a chunk as left operands of matrix instructions: words [piece][half of the
/// channels].
template <class S>
struct TokenOperand {
  uint32_t word[kPieces<S>][2][4];

  __device__ __forceinline__ explicit TokenOperand(const ChunkOfTokens<S>& x) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      uint32_t pair[kPieces<S>][kLaneChannels / 2];
      split(x.row[r], pair);
#pragma unroll
      for (int p = 0; p < kPieces<S>; ++p) {
#pragma unroll
        for (int w = 0; w < kLaneChannels / 2; ++w) {
          word[p][w / 2][w % 2 * 2 + r] = kPieces<S> == 1 ? own_register(pair[p][w]) : pair[p][w];
        }
      }
    }
  }
};

/// sum[group][tile] += the products of a chunk of tokens and of weights, whose fragments
/// weight(tile, piece) returns. The tensor core adds within the chunk alone: it cuts every sum
/// towards zero. kBeside tiles are worked on side by side, as an instruction waits for the one
/// before it in the same sum; of each, piece kFloatPieces - 1 is asked for first.
template <int kBeside, class S, int kGroups, int kTiles, class Weight>
__device__ __forceinline__ void multiply_chunk(const TokenOperand<S> (&x)[kGroups],
                                               const Weight& weight,
                                               float (&sum)[kGroups][kTiles][4]) {
  static_assert(kTiles % kBeside == 0, "no tile is left over");
#pragma unroll
  for (int first = 0; first < kTiles; first += kBeside) {
    float products[kGroups][kBeside][4] = {};
#pragma unroll
    for (int order = kFloatPieces - 1; order >= 0; --order) {
#pragma unroll
      for (int p = 0; p < kPieces<S>; ++p) {
        if (p > order) continue;
        uint4 w[kBeside];
#pragma unroll
        for (int tile = 0; tile < kBeside; ++tile) w[tile] = weight(first + tile, order - p);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
#pragma unroll
          for (int tile = 0; tile < kBeside; ++tile) {
            const uint32_t b[2] = {half == 0 ? w[tile].x : w[tile].z,
                                   half == 0 ? w[tile].y : w[tile].w};
#pragma unroll
            for (int group = 0; group < kGroups; ++group) {
              multiply_add(products[group][tile], x[group].word[p][half], b);
            }
          }
        }
      }
    }
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
#pragma unroll
      for (int tile = 0; tile < kBeside; ++tile) {
#pragma unroll
        for (int k = 0; k < 4; ++k) sum[group][first + tile][k] += products[group][tile][k];
      }
    }
  }
}

/// square[r] += this lane's part of the sum of squares of row r. Those of bfloat16, whose products
/// are exact, are the diagonal of the tokens times themselves: lane 4g + g / 2 has it.
template <class S>
__device__ __forceinline__ void add_squares(const ChunkOfTokens<S>& x, const TokenOperand<S>& left,
                                            float (&square)[2]) {
  if constexpr (std::is_same_v<S, BFloat16>) {
    float products[2][4] = {};
#pragma unroll
    for (int w = 0; w < kLaneChannels / 2; ++w) {
      const uint32_t* of = left.word[0][w / 2] + w % 2 * 2;
#pragma unroll
      for (int r = 0; r < 2; ++r) multiply_add_half(products[r], of[0], of[1], of[r]);
    }
    const bool is_even = lane() / 4 % 2 == 0, is_diagonal = lane() % 4 == lane() / 8;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float of_row = is_even ? products[r][2 * r] : products[r][2 * r + 1];
      square[r] += is_diagonal ? of_row : 0.0f;
    }
  } else {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float sum = x.row[r][0] * x.row[r][0];
#pragma unroll
      for (int k = 1; k < kLaneChannels; ++k) sum = fmaf(x.row[r][k], x.row[r][k], sum);
      square[r] += sum;
    }
  }
}

/// Logits and squares of 16 kGroups tokens over a piece.
template <int kGroups, int kTiles>
struct PieceSums {
  float piece[kGroups][kTiles][4];
  float piece_square[kGroups][2];

  __device__ __forceinline__ PieceSums() { clear(piece, piece_square); }

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

  // Floats, whose pieces take the registers, do not have all of four tiles beside each other.
  template <class S>
  static constexpr int kBeside = kPieces<S> == 3 && kTiles == 4 ? 2 : kTiles;

  template <class S, class Weight>
  __device__ __forceinline__ void add_chunk(const ChunkOfTokens<S> (&x)[kGroups],
                                            const Weight& weight) {
    add_chunk<kBeside<S>>(x, weight, std::make_index_sequence<kGroups>());
  }

  /// Tiles one after the other.
  template <class S, class Weight>
  __device__ __forceinline__ void add_chunk_in_turn(const ChunkOfTokens<S> (&x)[kGroups],
                                                    const Weight& weight) {
    add_chunk<1>(x, weight, std::make_index_sequence<kGroups>());
  }

  /// The sum of squares of token g + 8 row of a group, the same in its four lanes. Every lane takes
  /// part.
  __device__ __forceinline__ float square(int group, int row) const {
    float sum = piece_square[group][row];
    sum += warp_shuffle_xor(sum, 1);
    sum += warp_shuffle_xor(sum, 2);
    return sum;
  }

 private:
  template <int kTilesBeside, class S, class Weight, size_t... kGroup>
  __device__ __forceinline__ void add_chunk(const ChunkOfTokens<S> (&x)[kGroups],
                                            const Weight& weight, std::index_sequence<kGroup...>) {
    const TokenOperand<S> left[kGroups] = {TokenOperand<S>(x[kGroup])...};
    // The squares first: then x itself is not needed beside its pieces.
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      add_squares(x[group], left[group], piece_square[group]);
    }
    multiply_chunk<kTilesBeside>(left, weight, piece);
  }
};

/// Beside the sums of the piece in work, those of what is finished.
template <int kGroups, int kTiles>
struct SkinnySums : PieceSums<kGroups, kTiles> {
  using PieceSums<kGroups, kTiles>::clear;
  using PieceSums<kGroups, kTiles>::piece;
  using PieceSums<kGroups, kTiles>::piece_square;
  float done[kGroups][kTiles][4];
  float done_square[kGroups][2];

  __device__ __forceinline__ SkinnySums() { clear(done, done_square); }

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
      for (int r = 0; r < 2; ++r) done_square[group][r] += this->square(group, r);
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
