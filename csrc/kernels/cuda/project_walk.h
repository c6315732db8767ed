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

/// A lane's walk over the chunks of its tokens.
template <class S, int kGroups>
struct TokenWalk {
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
    const int64_t width = streams_left > 0 ? args.shape.width : 0;
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int token = group * kGroupTokens + 8 * r;
        x[group].row[r] = load_packed<kWhole, kLaneChannels>(
            stream + token * args.x.token_stride + c, token < tokens_left ? width - c : 0);
      }
    }
    c += kChunk;
    // A lane's channels may end before the chunk does.
    if (c - lane() % 4 * kLaneChannels < args.shape.width) return;
    c = lane() % 4 * kLaneChannels;
    --streams_left;
    stream += args.x.stream_stride;
  }
};

}  // namespace hyperstreams::cuda
