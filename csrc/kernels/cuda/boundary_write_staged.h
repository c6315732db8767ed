// boundary_write.h for many tokens in whole vectors.
//
// A block of up to 12 warps (8 but for bfloat16) walks in step along a part of the channels. The
// next chunk is on its way from memory while the one at hand is mixed and multiplied: X and y come
// into slots of shared memory that belong to a thread alone, W's fragments and bias into one of two
// stages of the block. There is one barrier per chunk. h_res and h_post of the block's tokens stay
// in shared memory, and so do the sums of the part: in registers they would take what the mixing
// needs.
#pragma once

#include <type_traits>

#include "boundary_kernels.h"
#include "boundary_state.h"
#include "boundary_write_sums.h"
#include "plan/staged.h"
#include "skinny_product.h"

namespace hyperstreams::cuda {

/// Dynamic shared memory of a block in words of 16 bytes: two stages [W, bias], then of every warp
/// its slots [token][vector][lane], weights [token] and sums [word][lane].
template <class S, int kN, int kTiles, bool kPerStream>
struct StagedMemory {
  static constexpr int kWeightWords = (kPerStream ? 1 : kN) *
                                      WriteSizes<kN, kTiles, kPerStream>::kSumTiles * kFloatPieces *
                                      kWarpThreads;
  static constexpr int kBiasWords = kChunk / 4;
  static constexpr int kStageWords = kWeightWords + kBiasWords;
  static constexpr int kStreamWords = kLaneChannels * sizeof(S) / 16;
  // y, of whichever type.
  static constexpr int kBranchWords = kLaneChannels * sizeof(float) / 16;
  static constexpr int kTokenWords = kN * kStreamWords + kBranchWords;
  static constexpr int kSlotWords = 2 * kTokenWords * kWarpThreads;
  static constexpr int kMixWords = kGroupTokens * kBoundaryWeightWords<kN>;
  // Of every stream that has its own, those of a tile in a word each, then both squares.
  static constexpr int kSums = WriteSizes<kN, kTiles, kPerStream>::kSums;
  static constexpr int kSumWords = WriteSizes<kN, kTiles, kPerStream>::kSumTiles + 1;
  static constexpr int kPartWords = kSums * kSumWords * kWarpThreads;
  static constexpr int kWarpWords = kSlotWords + kMixWords + kPartWords;
  // As the plan counts it.
  static_assert(kStageWords == staged_write_stage(kN, kSumWords - 1, kPerStream));
  static_assert(kWarpWords == staged_write_warp(kN, kSumWords - 1, kPerStream, sizeof(S)));
};

/// y of 8 channels from its words.
__device__ __forceinline__ void branch_of_words(DType dtype, const uint4 (&y)[2],
                                                float (&branch)[kLaneChannels]) {
  const uint32_t word[8] = {y[0].x, y[0].y, y[0].z, y[0].w, y[1].x, y[1].y, y[1].z, y[1].w};
  if (dtype == DType::kFloat32) {
#pragma unroll
    for (int k = 0; k < kLaneChannels; ++k) branch[k] = float_from_bits(word[k]);
  } else if (dtype == DType::kBFloat16) {
#pragma unroll
    for (int k = 0; k < kLaneChannels; ++k) {
      branch[k] = k % 2 == 0 ? bfloat_of<0>(word[k / 2]) : bfloat_of<1>(word[k / 2]);
    }
  } else {
#pragma unroll
    for (int k = 0; k < kLaneChannels; ++k) {
      branch[k] = to_float(Float16{static_cast<uint16_t>(word[k / 2] >> k % 2 * 16)});
    }
  }
}

/// What one thread does.
template <class S, int kN, int kTiles, bool kPerStream>
class StagedWrite {
  using Memory = StagedMemory<S, kN, kTiles, kPerStream>;
  using Sizes = WriteSizes<kN, kTiles, kPerStream>;
  using Row = Packed<S, kLaneChannels>;

 public:
  __device__ __forceinline__ explicit StagedWrite(const BoundaryWriteArgs& args) : args_(args) {
    const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
    const int64_t left = args.write.tokens - first_token();
    tokens_ = (left < kGroupTokens ? static_cast<int>(left) : kGroupTokens) - lane() / 4;
    own_ = 2 * Memory::kStageWords + warp * Memory::kWarpWords + lane();
  }

  __device__ __forceinline__ void run() {
    const int part_chunks = static_cast<int>(args_.chunks_per_part);
    chunk_ = static_cast<int>(blockIdx.y * args_.chunks_per_block);
    start();
    int left = part_chunks;
#pragma unroll 1
    while (chunk_ < end()) {
      add_chunk();
      if (--left > 0 && chunk_ < end()) continue;
      left = part_chunks;
      if (args_.n_logits > 0) write_sums((chunk_ - 1) / part_chunks);
    }
  }

 private:
  /// Token 0 of the warp.
  __device__ __forceinline__ int64_t first_token() const {
    return opaque(int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kWarpThreads * kGroupTokens;
  }
  /// Of the block's chunks.
  __device__ __forceinline__ int end() const {
    const int end = static_cast<int>((blockIdx.y + 1) * args_.chunks_per_block);
    const int chunks = static_cast<int>(args_.chunks);
    return end < chunks ? end : chunks;
  }
  /// This lane's first of chunk_ + `ahead`.
  __device__ __forceinline__ int64_t channel(int ahead) const {
    return int64_t{chunk_ + ahead} * kChunk + lane() % 4 * kLaneChannels;
  }
  __device__ __forceinline__ int branch_bytes() const {
    return args_.write.y_dtype == DType::kFloat32 ? 4 : 2;
  }
  __device__ __forceinline__ bool exists(int row) const { return tokens_ > 8 * row; }
  // Opaque, so that addresses are made where they are used and do not stay in registers.
  __device__ __forceinline__ uint4* slots(int row) const {
    return dynamic_shared<uint4>() + opaque(own_) + row * Memory::kTokenWords * kWarpThreads;
  }
  /// Weights of token 0 of the warp.
  __device__ __forceinline__ uint4* mixes() const {
    return dynamic_shared<uint4>() + opaque(own_) - lane() + Memory::kSlotWords;
  }
  __device__ __forceinline__ uint4* sums() const {
    return dynamic_shared<uint4>() + opaque(own_) + Memory::kSlotWords + Memory::kMixWords;
  }
  __device__ __forceinline__ uint4* stage(int chunk) const {
    return dynamic_shared<uint4>() + (chunk & 1) * Memory::kStageWords;
  }

  /// Brings the first chunk on its way.
  __device__ __forceinline__ void start() {
    const MixWriteArgs& w = args_.write;
    const int64_t t = first_token() + lane() / 4;
    const int64_t c = channel(0);
    x_ = static_cast<const S*>(w.x.data) + t * w.x.token_stride + c;
    if (w.y.data) {
      y_ =
          static_cast<const unsigned char*>(w.y.data) + (t * w.y.token_stride + c) * branch_bytes();
    }
    copy_stage(chunk_);
    request<0>();
    request<1>();
    end_copy_group();
    uint4* sum = sums();
#pragma unroll
    for (int k = 0; k < Memory::kSums * Memory::kSumWords; ++k) sum[k * kWarpThreads] = {};
    if (w.y.data) {
      store_boundary_weights<kN, kGroupTokens>(w, first_token(), mixes());
    }
  }

  /// Requests W and bias of a chunk.
  __device__ __forceinline__ void copy_stage(int chunk) const {
    const int threads = opaque(static_cast<int>(blockDim.x));
    int k = static_cast<int>(threadIdx.x);
    uint4* to = stage(chunk) + k;
    if (args_.n_logits > 0) {
      const uint4* from = args_.weights + int64_t{chunk} * Memory::kWeightWords + k;
#pragma unroll 4
      for (; k < Memory::kWeightWords; k += threads) {
        copy_async(to, from);
        to += threads;
        from += threads;
      }
    }
    if (!args_.write.bias || threadIdx.x >= Memory::kBiasWords) return;
    to = stage(chunk) + Memory::kWeightWords + threadIdx.x;
    const int64_t c = int64_t{chunk} * kChunk + threadIdx.x * 4;
    copy_async(to, aligned<const uint4>(static_cast<const float*>(args_.write.bias) + c),
               c < args_.write.width);
  }

  /// Requests token `row` of the chunk to come: zeros for what does not exist.
  template <int kRow>
  __device__ __forceinline__ void request() const {
    const MixWriteArgs& w = args_.write;
    uint4* slot = slots(kRow);
    const bool is_there = exists(kRow) && channel(0) < w.width;
    const S* x = x_ + kRow * 8 * opaque(w.x.token_stride);
#pragma unroll
    for (int i = 0; i < kN; ++i) {
#pragma unroll
      for (int k = 0; k < Memory::kStreamWords; ++k) {
        copy_async(slot + (i * Memory::kStreamWords + k) * kWarpThreads,
                   aligned<const uint4>(x) + k, is_there);
      }
      x += w.x.stream_stride;
    }
    if (!w.y.data) return;
    const uint4* y =
        aligned<const uint4>(y_ + kRow * 8 * opaque(w.y.token_stride) * branch_bytes());
    slot += kN * Memory::kStreamWords * kWarpThreads;
    copy_async(slot, y, is_there);
    if (w.y_dtype == DType::kFloat32) copy_async(slot + kWarpThreads, y + 1, is_there);
  }

  /// Token `row` of the chunk that has come, with the stage `now`: X'.
  template <int kRow>
  __device__ __forceinline__ void take(const uint4* now, Row (&x)[kN]) const;

  /// x becomes X', two channels at a time.
  template <bool kMixes>
  __device__ __forceinline__ void mix(const BoundaryWeights<kN>& weights,
                                      const float (&branch)[kLaneChannels], Row (&x)[kN]) const;

  /// The chunk that is on its way; requests the one after it.
  __device__ __forceinline__ void add_chunk();

  /// A chunk's sums to those of the part.
  __device__ __forceinline__ void add_to_sums(const PieceSums<1, Sizes::kSumTiles>& chunk,
                                              uint4* words) const;

  /// u of token `row` of the chunk before chunk_.
  __device__ __forceinline__ void read(int row, const Row (&x)[kN]) const;

  /// The part's sums to scratch; another begins.
  __device__ __forceinline__ void write_sums(int part) const;

  const BoundaryWriteArgs& args_;
  int tokens_;  // of the warp, from this lane's first on
  int own_;     // the warp's memory, this lane's first word
  int chunk_;
  // This lane's place in X and y.
  const S* x_;
  const unsigned char* y_ = nullptr;
};

/// Warps of a block at most; other streams than bfloat16 are split, which takes the registers.
template <class S>
constexpr int kStagedWarps = std::is_same_v<S, BFloat16> ? 12 : 8;

template <class S, int kN, int kTiles, bool kPerStream>
__global__ void __launch_bounds__(kStagedWarps<S>* kWarpThreads, 1)
    boundary_write_staged_kernel(const __grid_constant__ BoundaryWriteArgs args) {
  StagedWrite<S, kN, kTiles, kPerStream>(args).run();
}

}  // namespace hyperstreams::cuda
