// What the gradients of boundary do with matrices in registers.
#pragma once

#include "device/device.h"

namespace hyperstreams::cuda {

/// Pieces of grad_logits and W, and the number of orders of products that are taken.
template <class S>
constexpr int kGradientPieces = sizeof(S) == 4 ? 3 : 2;

/// out[k] = sum over a lane's quad (lanes 4g to 4g + 3) of value[q kCount / 4 + k].
template <int kCount>
__device__ __forceinline__ void quad_sums(const float (&value)[kCount], float (&out)[kCount / 4]) {
  static_assert(kCount % 4 == 0, "quarters");
  const bool upper = (lane() & 2) != 0, odd = (lane() & 1) != 0;
  float half[kCount / 2];
#pragma unroll
  for (int k = 0; k < kCount / 2; ++k) {
    const float kept = upper ? value[k + kCount / 2] : value[k];
    half[k] = kept + warp_shuffle_xor(upper ? value[k] : value[k + kCount / 2], 2);
  }
#pragma unroll
  for (int k = 0; k < kCount / 4; ++k) {
    const float kept = odd ? half[k + kCount / 4] : half[k];
    out[k] = kept + warp_shuffle_xor(odd ? half[k] : half[k + kCount / 4], 1);
  }
}

/// 8 x 8 elements of 16 bits transposed: a lane gives columns 2q, 2q + 1 of row g and gets rows 2q,
/// 2q + 1 of column g.
__device__ __forceinline__ uint32_t transpose(uint32_t pair) {
  const int g = lane() / 4, q = lane() % 4;
  const uint32_t first = warp_shuffle(pair, 8 * q + g / 2);
  const uint32_t second = warp_shuffle(pair, 8 * q + 4 + g / 2);
  return g % 2 == 0 ? (first & 0xffffu) | second << 16 : first >> 16 | (second & 0xffff0000u);
}

/// sum += the products of pieces a and b with a + b below kPieceCount, smallest first.
template <int kPieceCount, int kA>
__device__ __forceinline__ void multiply_pieces(const uint32_t (&a)[kA][4],
                                                const uint32_t (&b)[kPieceCount][2],
                                                float (&sum)[4]) {
#pragma unroll
  for (int order = kPieceCount - 1; order >= 0; --order) {
#pragma unroll
    for (int p = 0; p < kA; ++p) {
      if (p <= order) multiply_add(sum, a[p], b[order - p]);
    }
  }
}

}  // namespace hyperstreams::cuda
