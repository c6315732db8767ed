// How the backward of boundary lays out W for the tensor cores.
#pragma once

#include "device/device.h"

namespace hyperstreams::cuda {

constexpr int kSlabThreads = 256;
constexpr int kSlabWarps = kSlabThreads / kWarpThreads;
constexpr int kWarpChannels = 16;
constexpr int kQuadChannels = 4;  // of a lane
constexpr int kInnerLogits = 16;  // of one matrix instruction

/// Channel of a warp's 16 that is element g of half `upper` in a matrix.
__device__ __forceinline__ int matrix_channel(int g, int upper) {
  return g / 2 * kQuadChannels + 2 * upper + g % 2;
}

/// Fragments [block of 16 channels][stream][16 logits][piece][lane] of W: the words are rows 2q, 2q
/// + 1 and 2q + 8, 2q + 9 of element g of both halves.
__device__ __forceinline__ int64_t gradient_fragment(int64_t channels, int64_t streams,
                                                     int64_t stream, int64_t steps, int64_t step) {
  return ((channels * streams + stream) * steps + step) * kFloatPieces * kWarpThreads;
}

}  // namespace hyperstreams::cuda
