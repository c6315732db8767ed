// The two skinny products of project's backward, on tensor cores. With g[t, k] the
// gradients of the logits:
//
//   grad_v[t, d] = sum_k g[t, k] W[k, d]         W[k, d] = norm_weight[d] phi[k, d]
//   grad_W[k, d] = sum_t g[t, k] v[t, d]
//
// The channels of a token come in columns of 8 vectors of 16 bytes of one stream (the last of a
// stream padded with zeros), in order of streams. A warp takes one column and 16 tokens at a time;
// lane 4g + q holds vector g of tokens 4q to 4q + 3, as they lie in memory, in both products and in
// their results: nothing is exchanged. A vector of 2h channels makes h steps: step j multiplies the
// channels j and j + h of all vectors. The products are [channels, logits] [logits, tokens] and
// [channels, tokens] [tokens, logits].
//
// W lies in shared memory in fragments for the life of a block; g is split and arranged for all
// warps of the block once per 16 tokens. Pieces (device/pieces.h): W and g two each for grad_v of
// 2-byte types, which is rounded to them, and three for float; v all of its pieces and g three for
// grad_W.
//
// grad_v of a token depends on the token alone; grad_W adds 16 tokens on the tensor core, then
// their sums in float, ascending.
#pragma once

#include "device/device.h"

namespace hyperstreams::cuda {

// Tokens that a warp takes at a time, and those of one lane.
constexpr int kStepTokens = 16;
constexpr int kLaneTokens = 4;
constexpr int kColumnVectors = 8;
constexpr int kGradientWarps = 4;
constexpr int kGradientThreads = kGradientWarps * kWarpThreads;

/// Compile-time numbers for streams of S and kTiles tiles of 8 logits.
template <class S, int kTiles>
struct GradientTraits {
  static constexpr int kVector = Vector<S>::kSize;
  static constexpr int kChannels = kColumnVectors * kVector;  // of a column
  static constexpr int kSteps = kVector / 2;
  static constexpr int kLogits = 8 * kTiles;
  static constexpr int kLogitSteps = (kTiles + 1) / 2;  // of 16
  static constexpr int kPiecesOfV = sizeof(S) == 2 ? 2 : kFloatPieces;
  static_assert(kVector == 4 || kVector == 8, "16-byte vectors");
};

/// The column at which a warp works, and this lane's vector in it.
struct Column {
  int64_t stream, c;
  __device__ __forceinline__ Column(int64_t column, int64_t width, int vector) {
    const int64_t channels = kColumnVectors * vector;
    const int64_t per_stream = (width + channels - 1) / channels;
    stream = column / per_stream;
    c = column % per_stream * channels + lane() / 4 * vector;
  }
};

/// Fragments of W for the columns of a block.
template <class S, int kTiles>
struct WeightFragments {
  using Traits = GradientTraits<S, kTiles>;
  uint4 word[kGradientWarps][Traits::kSteps][Traits::kLogitSteps][Traits::kPiecesOfV][kWarpThreads];

  /// Fills the part of this warp: logits from `first` on. Only this warp reads it.
  /// weight(logit, to) gives this lane's channels of W.
  template <class Load>
  __device__ __forceinline__ void fill(int64_t first, const Load& weight) {
    constexpr int kHalf = Traits::kSteps;
    auto& fragments = word[threadIdx.x / kWarpThreads];
#pragma unroll
    for (int step = 0; step < Traits::kLogitSteps; ++step) {
      float w[4][Traits::kVector];  // of logits 2q, 2q + 1, 2q + 8, 2q + 9
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        weight(first + step * 16 + lane() % 4 * 2 + k % 2 + k / 2 * 8, w[k]);
      }
#pragma unroll
      for (int j = 0; j < kHalf; ++j) {
        uint32_t pair[4][Traits::kPiecesOfV];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const int channel = j + k % 2 * kHalf, logit = k / 2 * 2;
          split(w[logit][channel], w[logit + 1][channel], pair[k]);
        }
#pragma unroll
        for (int p = 0; p < Traits::kPiecesOfV; ++p) {
          fragments[j][step][p][lane()] = {pair[0][p], pair[1][p], pair[2][p], pair[3][p]};
        }
      }
    }
  }
};

/// Fragments of g for 16 tokens: [logits, tokens] for grad_v, [tokens, logits] for grad_W; and what
/// else backward keeps per token.
template <class S, int kTiles>
struct GradientFragments {
  using Traits = GradientTraits<S, kTiles>;
  uint2 by_logit[Traits::kLogitSteps][2][Traits::kPiecesOfV][kWarpThreads];
  uint2 by_token[2 * Traits::kLogitSteps][kFloatPieces][kWarpThreads];
  float factor[kStepTokens];
};

/// A thread's part of the gradients on their way from memory to fragments: 2 tokens x 2 logits.
template <class S, int kTiles>
class GradientLoader {
 public:
  /// g: [T, K] contiguous. Tokens from `first` on, those from `end` on are zeros; logits from
  /// `logit` on, zeros from K on.
  __device__ __forceinline__ void load(const float* g, int64_t n_logits, int64_t first, int64_t end,
                                       int64_t logit) {
    const int64_t token = first + 2 * token_pair(), column = logit + 2 * logit_pair();
    const int64_t tokens = end - token, columns = n_logits - column;
    const float* row = g + token * n_logits + column;
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      value_[0][k] = tokens > 0 && columns > k ? row[k] : 0;
      value_[1][k] = tokens > 1 && columns > k ? row[n_logits + k] : 0;
    }
  }

  __device__ __forceinline__ void store(GradientFragments<S, kTiles>& to) const {
    if (logit_pair() >= 8 * Traits::kLogitSteps) return;
    const int t = 2 * token_pair(), k = 2 * logit_pair();
    // Word `upper` of a fragment's lane is the second 8 of 16 rows.
    const int quad = k % 8 / 2, upper = k / 8 % 2;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      uint32_t pair[Traits::kPiecesOfV];
      split(value_[i][0], value_[i][1], pair);
      // Columns 2q + {0, 1} of half h are tokens 4q + 2h + {0, 1}.
      const int column = t / 4 * 2 + i;
#pragma unroll
      for (int p = 0; p < Traits::kPiecesOfV; ++p) {
        word(to.by_logit[k / 16][t / 2 % 2][p][column * 4 + quad], upper) = pair[p];
      }
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      uint32_t pair[kFloatPieces];
      split(value_[0][i], value_[1][i], pair);
      // Rows 2q + {0, 1} and 2q + 8 + {0, 1} are tokens 4q + {0, 1} and 4q + 2 + {0, 1}.
#pragma unroll
      for (int p = 0; p < kFloatPieces; ++p) {
        word(to.by_token[k / 8][p][(k % 8 + i) * 4 + t / 4], t / 2 % 2) = pair[p];
      }
    }
  }

 private:
  using Traits = GradientTraits<S, kTiles>;
  static_assert(kStepTokens / 2 * 16 == kGradientThreads, "a thread for every 2 x 2 of 16 x 32");

  __device__ __forceinline__ static int token_pair() { return threadIdx.x / 16; }
  __device__ __forceinline__ static int logit_pair() { return threadIdx.x % 16; }
  __device__ __forceinline__ static uint32_t& word(uint2& words, int second) {
    return second ? words.y : words.x;
  }

  float value_[2][2];
};

/// This lane's vectors of 16 tokens: tokens 4q to 4q + 3.
template <class S>
struct StepTokens {
  Packed<S, Vector<S>::kSize> token[kLaneTokens];
};

/// sum[s][half] = g W of steps first to first + kCount - 1, as multiply_add lays it out. The chains
/// of products are interleaved, so that each may wait for its last one.
template <int kCount, class S, int kTiles>
__device__ __forceinline__ void multiply_steps(const WeightFragments<S, kTiles>& weights,
                                               const GradientFragments<S, kTiles>& gradients,
                                               int first, float (&sum)[kCount][2][4]) {
  using Traits = GradientTraits<S, kTiles>;
  constexpr int kPieces = Traits::kPiecesOfV;
  const auto& fragments = weights.word[threadIdx.x / kWarpThreads];
#pragma unroll
  for (int s = 0; s < kCount; ++s) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int k = 0; k < 4; ++k) sum[s][half][k] = 0;
    }
  }
#pragma unroll
  for (int order = kPieces - 1; order >= 0; --order) {
#pragma unroll
    for (int p = 0; p <= order; ++p) {
#pragma unroll
      for (int step = 0; step < Traits::kLogitSteps; ++step) {
        uint32_t b[2][2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const uint2 g = gradients.by_logit[step][half][order - p][lane()];
          b[half][0] = g.x;
          b[half][1] = g.y;
        }
#pragma unroll
        for (int s = 0; s < kCount; ++s) {
          const uint4 w = fragments[first + s][step][p][lane()];
          const uint32_t a[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
          for (int half = 0; half < 2; ++half) multiply_add(sum[s][half], a, b[half]);
        }
      }
    }
  }
}

/// Calls put(i, channel, a, b) with this lane's part of g W for its token i, and two channels from
/// `channel` on.
template <class S, int kTiles, class Put>
__device__ __forceinline__ void multiply_grad_v(const WeightFragments<S, kTiles>& weights,
                                                const GradientFragments<S, kTiles>& gradients,
                                                const Put& put) {
  constexpr int kSteps = GradientTraits<S, kTiles>::kSteps;
#pragma unroll
  for (int first = 0; first < kSteps; first += 2) {
    float sum[2][2][4];
    multiply_steps<2>(weights, gradients, first, sum);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        put(2 * half + i, first, sum[0][half][i], sum[1][half][i]);
        put(2 * half + i, first + kSteps, sum[0][half][2 + i], sum[1][half][2 + i]);
      }
    }
  }
}

/// This lane's part of grad_W of a column: [step][tile], as multiply_add lays it out.
template <class S, int kTiles>
struct WeightGradient {
  using Traits = GradientTraits<S, kTiles>;
  float sum[Traits::kSteps][kTiles][4];

  __device__ __forceinline__ WeightGradient() {
#pragma unroll
    for (int j = 0; j < Traits::kSteps; ++j) {
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
        for (int k = 0; k < 4; ++k) sum[j][tile][k] = 0;
      }
    }
  }

  __device__ __forceinline__ void add(const StepTokens<S>& v,
                                      const GradientFragments<S, kTiles>& gradients) {
#pragma unroll
    for (int j = 0; j < Traits::kSteps; ++j) {
      uint32_t a[kPieces<S>][4];
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        uint32_t pair[kPieces<S>];
        const int channel = j + k % 2 * Traits::kSteps, token = k / 2 * 2;
        split_pair(v.token[token], v.token[token + 1], channel, pair);
#pragma unroll
        for (int p = 0; p < kPieces<S>; ++p) a[p][k] = pair[p];
      }
      float products[kTiles][4] = {};
#pragma unroll
      for (int order = kFloatPieces - 1; order >= 0; --order) {
#pragma unroll
        for (int p = 0; p < kPieces<S>; ++p) {
          if (p > order) continue;
#pragma unroll
          for (int tile = 0; tile < kTiles; ++tile) {
            const uint2 g = gradients.by_token[tile][order - p][lane()];
            const uint32_t b[2] = {g.x, g.y};
            multiply_add(products[tile], a[p], b);
          }
        }
      }
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
        for (int k = 0; k < 4; ++k) sum[j][tile][k] += products[tile][k];
      }
    }
  }

  /// Calls write(logit, vector) for the 2 kTiles logits of which this lane holds its vector g.
  template <class Write>
  __device__ __forceinline__ void take(const Write& write) const {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float vector[Traits::kVector];
#pragma unroll
        for (int j = 0; j < Traits::kSteps; ++j) {
          vector[j] = sum[j][tile][i];
          vector[j + Traits::kSteps] = sum[j][tile][2 + i];
        }
        write(tile * 8 + lane() % 4 * 2 + i, vector);
      }
    }
  }

 private:
  /// pair[p] = piece p of element k of both.
  __device__ __forceinline__ static void split_pair(const Packed<S, Traits::kVector>& first,
                                                    const Packed<S, Traits::kVector>& second, int k,
                                                    uint32_t (&pair)[kPieces<S>]) {
    if constexpr (std::is_same_v<S, BFloat16>) {
      const uint32_t words[2] = {first.word[k / 2], second.word[k / 2]};
      pair[0] = k % 2 == 0 ? pair_of_halves<0>(words[0], words[1])
                           : pair_of_halves<1>(words[0], words[1]);
    } else {
      split(first[k], second[k], pair);
    }
  }
};

}  // namespace hyperstreams::cuda
