// What the gradients of boundary do with matrices and sums in registers.
#pragma once

#include "device/device.h"
#include "plan/gradients.h"

namespace hyperstreams::cuda {

/// Calls add(a, b) for the pieces whose products are taken, those with a + b below kPieceCount,
/// smallest first. kA: pieces that a has.
template <int kPieceCount, int kA, class Add>
__device__ __forceinline__ void for_pieces(const Add& add) {
#pragma unroll
  for (int order = kPieceCount - 1; order >= 0; --order) {
#pragma unroll
    for (int p = 0; p < kA; ++p) {
      if (p <= order) add(p, order - p);
    }
  }
}

/// Sums over the 2 kMask lanes that share a token. Lanes exchange halves of what they hold, as long
/// as it has halves; write(k, sum) is called for every sum by one of the lanes. Every lane takes
/// part. `first`, `writes`: for the function's own use.
template <int kMask, int kCount, class Write>
__device__ __forceinline__ void token_sums(const float (&value)[kCount], const Write& write,
                                           int first = 0, bool writes = true) {
  if constexpr (kMask == 0) {
    if (!writes) return;
#pragma unroll
    for (int k = 0; k < kCount; ++k) write(first + k, value[k]);
  } else if constexpr (kCount % 2 == 0) {
    const bool upper = (lane() & kMask) != 0;
    float half[kCount / 2];
#pragma unroll
    for (int k = 0; k < kCount / 2; ++k) {
      const float kept = upper ? value[k + kCount / 2] : value[k];
      half[k] = kept + warp_shuffle_xor(upper ? value[k] : value[k + kCount / 2], kMask);
    }
    token_sums<kMask / 2>(half, write, upper ? first + kCount / 2 : first, writes);
  } else {
    float sum[kCount];
#pragma unroll
    for (int k = 0; k < kCount; ++k) sum[k] = value[k] + warp_shuffle_xor(value[k], kMask);
    token_sums<kMask / 2>(sum, write, first, writes && (lane() & kMask) == 0);
  }
}

/// The sums over channels of one token, [j][kN + 2], over the lanes that share it. Where kN is even
/// the streams' halves are exchanged as soon as both are there: that takes fewer registers.
template <int kN>
class TokenSums {
 public:
  __device__ __forceinline__ void add(int j, const float (&value)[kN + 2]) {
    if (j < kRows) {
#pragma unroll
      for (int k = 0; k < kN + 2; ++k) value_[j * (kN + 2) + k] = value[k];
      return;
    }
    const bool upper = (lane() & kHalf) != 0;
#pragma unroll
    for (int k = 0; k < kN + 2; ++k) {
      float& sum = value_[(j - kRows) * (kN + 2) + k];
      const float kept = upper ? value[k] : sum;
      sum = kept + warp_shuffle_xor(upper ? sum : value[k], kHalf);
    }
  }

  /// After the last stream: write(k, sum) for every sum, by one of the lanes; k beyond the last for
  /// what fills up. Every lane takes part.
  template <class Write>
  __device__ __forceinline__ void finish(const Write& write) const {
    if constexpr (kN % 2 == 0) {
      token_sums<kHalf / 2>(value_, write, (lane() & kHalf) != 0 ? kRows * (kN + 2) : 0);
    } else {
      token_sums<kHalf>(value_, write);
    }
  }

 private:
  static constexpr int kHalf = kSlabLanes / 2;
  static constexpr int kRows = kN % 2 == 0 ? kN / 2 : kN;
  static constexpr int kCount = kRows * (kN + 2);
  float value_[kN % 2 == 0 ? kCount : (kCount + 3) / 4 * 4] = {};
};

/// X' [16 tokens, 16 channels] as an operand [channels, tokens], in pieces. `tile`: the first
/// token's row at the first channel; rows lie kRow vectors apart.
template <class S, int kRow>
__device__ __forceinline__ void load_state(const uint4* tile, uint32_t (&to)[kPieces<S>][4]) {
  Packed<S, 8> words;
  if constexpr (sizeof(S) == 2) {
    const int row = lane() % 8 + lane() / 16 * 8, vector = lane() / 8 % 2;
    load_transposed(words.word, tile + row * kRow + vector);
  } else {
    const int g = lane() / 4, q = lane() % 4;
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      const int channel = g + k / 2 % 2 * 8, token = 2 * q + k % 2 + k / 4 * 8;
      words.word[k] = aligned<const uint32_t>(tile + token * kRow)[channel];
    }
  }
  split(words, to);
}

}  // namespace hyperstreams::cuda
