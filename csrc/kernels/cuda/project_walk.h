// What project's kernels share: scratch, and a lane's walk over its tokens.
#pragma once

#include "device/device.h"
#include "hyperstreams/project.h"
#include "skinny_product.h"

namespace hyperstreams::cuda {

constexpr int kPieceChunks = 8;

/// The numbers of a ProjectPlan that the kernels need, and scratch.
struct ProjectWork {
  int64_t slabs, pieces, pieces_per_segment, pieces_per_part, parts;
  uint4* weights;  // fragments [slabs, pieces * 8, tiles, 3, 32]
  float* sums;     // [parts, T, K + 1], squares last

  __device__ __forceinline__ float* sum(const ProjectShape& shape, int64_t part, int64_t t,
                                        int64_t k) const {
    return sums + (part * shape.tokens + t) * (shape.n_logits + 1) + k;
  }
};

/// 16-byte words of a lane's part of a chunk of 16 kGroups tokens.
template <class S, int kGroups>
constexpr int kChunkWords = kGroups * 2 * kLaneChannels * static_cast<int>(sizeof(S)) / 16;

/// A lane's walk over the chunks of its tokens.
template <class S, int kGroups>
struct TokenWalk {
  static constexpr int kRowWords = kChunkWords<S, 1> / 2;
  const S* stream;  // of the lane's first token
  int64_t c;        // the lane's first channel of the chunk
  int streams_left, tokens_left;

  __device__ __forceinline__ TokenWalk(const ProjectArgs& args, int64_t first, int64_t chunk) {
    const ChunkPosition position(chunk, args.shape.width);
    const int64_t t = first + lane() / 4;
    constexpr int kTokens = kGroups * kGroupTokens;
    tokens_left =
        static_cast<int>(args.shape.tokens - t < kTokens ? args.shape.tokens - t : kTokens);
    streams_left = args.shape.n_streams - static_cast<int>(position.stream);
    c = position.c + lane() % 4 * kLaneChannels;
    stream = static_cast<const S*>(args.x.data) + t * args.x.token_stride +
             position.stream * args.x.stream_stride;
  }

  /// Loads the chunk and goes to the next; zeros beyond the last token and the last stream.
  template <bool kWhole>
  __device__ __forceinline__ void load(const ProjectArgs& args, ChunkOfTokens<S> (&x)[kGroups]) {
    for_rows(args, [&](int group, int r, const S* from, int64_t count) {
      x[group].row[r] = load_packed<kWhole, kLaneChannels>(from, count);
    });
    advance(args);
  }

  /// The same into slots of shared memory that are this thread's alone, `stride` words apart; whole
  /// vectors arrive later, as copies do.
  template <bool kWhole>
  __device__ __forceinline__ void request(const ProjectArgs& args, uint4* slot, int stride) {
    for_rows(args, [&](int, int, const S* from, int64_t count) {
      if constexpr (kWhole) {
#pragma unroll
        for (int k = 0; k < kRowWords; ++k) {
          copy_async(slot + k * stride, aligned<const uint4>(from) + k, count > 0);
        }
      } else {
        const auto row = load_packed<kWhole, kLaneChannels>(from, count);
#pragma unroll
        for (int k = 0; k < kRowWords; ++k) {
          slot[k * stride] = {row.word[4 * k], row.word[4 * k + 1], row.word[4 * k + 2],
                              row.word[4 * k + 3]};
        }
      }
      slot += kRowWords * stride;
    });
    advance(args);
  }

 private:
  /// Calls f(group, row, where it lies, channels that there are) for the lane's tokens.
  template <class F>
  __device__ __forceinline__ void for_rows(const ProjectArgs& args, const F& f) const {
    const int64_t width = streams_left > 0 ? args.shape.width : 0;
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int token = group * kGroupTokens + 8 * r;
        f(group, r, stream + token * args.x.token_stride + c, token < tokens_left ? width - c : 0);
      }
    }
  }

  __device__ __forceinline__ void advance(const ProjectArgs& args) {
    c += kChunk;
    // A lane's channels may end before the chunk does.
    if (c - lane() % 4 * kLaneChannels < args.shape.width) return;
    c = lane() % 4 * kLaneChannels;
    --streams_left;
    stream += args.x.stream_stride;
  }
};

/// What `request` left in slots.
template <class S, int kGroups>
__device__ __forceinline__ void take_slots(const uint4* slot, int stride,
                                           ChunkOfTokens<S> (&x)[kGroups]) {
  constexpr int kRowWords = kChunkWords<S, 1> / 2;
#pragma unroll
  for (int row = 0; row < 2 * kGroups; ++row) {
#pragma unroll
    for (int k = 0; k < kRowWords; ++k) {
      const uint4 four = slot[(row * kRowWords + k) * stride];
      uint32_t* word = x[row / 2].row[row % 2].word + 4 * k;
      word[0] = four.x;
      word[1] = four.y;
      word[2] = four.z;
      word[3] = four.w;
    }
  }
}

}  // namespace hyperstreams::cuda
