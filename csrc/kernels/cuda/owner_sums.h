// Backward kernels in which a token is owned by a warp or a block: which tokens, and sums over the
// owner.
//
// Block b owns tokens [b, b + 1) * tokens_per_block (see OwnerPlan in hyperstreams/plan.h), 256
// threads. Each thread of an owner handles some channels and holds its part of the token's sums.
#pragma once

#include "device/device.h"

namespace hyperstreams::cuda {

constexpr int kOwnerThreads = 256;
constexpr int kOwnerWarps = kOwnerThreads / kWarpThreads;
// Given no number here, ptxas spills a few bytes to make room for more blocks; given 2, the widest
// kernels spill on sm_100.
constexpr int kBlocksPerMultiprocessor = 1;

/// This thread's tokens: first, first + kAtOnce, ... below end; rank: its place in the owner.
template <int kThreadsPerToken>
struct OwnedTokens {
  static_assert(kThreadsPerToken == kWarpThreads || kThreadsPerToken == kOwnerThreads,
                "a token belongs to a warp or to the block");
  static constexpr int kAtOnce = kOwnerThreads / kThreadsPerToken;
  int rank;
  int64_t first, end;

  __device__ __forceinline__ OwnedTokens(int64_t tokens, int64_t tokens_per_block) {
    const int64_t begin = blockIdx.x * tokens_per_block;
    rank = threadIdx.x % kThreadsPerToken;
    first = begin + threadIdx.x / kThreadsPerToken;
    end = begin + tokens_per_block < tokens ? begin + tokens_per_block : tokens;
  }
};

template <int kCount>
struct OwnerSumStorage {
  float warp[kOwnerWarps][kCount];
};

/// Calls write(k, sum of value[k] over the owner) once for every k < kCount, on some thread of the
/// owner, and makes `value` 0. Every thread of the owner takes part; of the block when
/// kThreadsPerToken is kOwnerThreads, and only then is `storage` used. It is free again on return.
template <int kThreadsPerToken, int kCount, class Write>
__device__ __forceinline__ void owner_sums(float (&value)[kCount], OwnerSumStorage<kCount>& storage,
                                           const Write& write) {
  constexpr bool kBlock = kThreadsPerToken == kOwnerThreads;
  constexpr int kPadded = kCount > 16  ? 32
                          : kCount > 8 ? 16
                          : kCount > 4 ? 8
                          : kCount > 2 ? 4
                                       : kCount;
#pragma unroll
  for (int first = 0; first < kCount; first += kPadded) {
    float part[kPadded];
#pragma unroll
    for (int k = 0; k < kPadded; ++k) {
      part[k] = first + k < kCount ? value[first + k] : 0;
      if (first + k < kCount) value[first + k] = 0;
    }
    const float sum = warp_sums(part);
    const int k = first + lane() * kPadded / kWarpThreads;
    if (lane() % (kWarpThreads / kPadded) == 0 && k < kCount) {
      if (kBlock) {
        storage.warp[threadIdx.x / kWarpThreads][k] = sum;
      } else {
        write(k, sum);
      }
    }
  }
  if constexpr (kBlock) {
    block_barrier();
    for (int k = threadIdx.x; k < kCount; k += kOwnerThreads) {
      float sum = storage.warp[0][k];
#pragma unroll
      for (int warp = 1; warp < kOwnerWarps; ++warp) sum += storage.warp[warp][k];
      write(k, sum);
    }
    block_barrier();
  }
}

}  // namespace hyperstreams::cuda
