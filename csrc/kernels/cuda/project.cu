// project on CUDA, forward. With v[t, d] the streams of a token laid end to end, D = n C:
//
//   logits[t, k] = sum_d v[t, d] norm_weight[d] phi[k, d]
//   inv_rms[t]   = 1 / sqrt(mean_d v[t, d]^2 + eps), or with eps outside or as a floor
//
// Many tokens: a block of 4 warps owns 128 tokens (64 of float and float16), up to 32 logits (16 in
// masked vectors) and a part of the channels; a warp a quarter of the tokens. phi, split and in
// fragments (a kernel of its own writes them), and X come through shared memory, three stages deep;
// X's part of it belongs to the thread that multiplies it.
// Few tokens: a block of 8 warps owns 16 tokens and a piece of 256 channels, a warp a chunk of it,
// so that all loads are in flight at once; it splits phi itself. Either way partial sums go to
// scratch, and a last kernel adds them.
//   n C elements, read once per 32 logits; at the most 8 (K + 1) floats per token for the partial
//   sums; phi is read once, and its fragments, 6 bytes a weight, by each block of tokens, from L2.
//
// Order of the sums and errors: skinny_product.h. Deterministic, and a token's results have the
// same bits in every batch. 33 kernels (3 dtypes; 1 to 4 tiles of 8 logits in whole vectors, 2
// masked; many tokens or few; fragments, whole or masked; the last sums).
#include "hyperstreams/project.h"

#include <algorithm>
#include <type_traits>

#include "add_rows.h"
#include "device/device.h"
#include "dispatch.h"
#include "plan/staged.h"
#include "project_plan.h"
#include "project_statistic.h"
#include "project_walk.h"
#include "skinny_product.h"

namespace hyperstreams::cuda {
namespace {

constexpr int kProjectThreads = 128;
constexpr int kProjectWarps = kProjectThreads / kWarpThreads;
constexpr int kFinishThreads = 256;
constexpr int kDirectThreads = kPieceChunks * kWarpThreads;
// Stages of weights in shared memory, and chunks of a stage.
constexpr int kStages = 3;
constexpr int kStageChunks = 2;
// Groups of 16 tokens of a warp. Float and float16 leave registers for one: they are split.
template <class S>
constexpr int kWarpGroups = std::is_same_v<S, BFloat16> ? 2 : 1;
// Leaves 255 registers to a thread.
constexpr int kBlocksPerMultiprocessor = 2;

/// A warp writes the fragments of one chunk and tile.
template <bool kWhole>
__global__ void __launch_bounds__(kProjectThreads)
    project_weights_kernel(const ProjectArgs args, const ProjectWork work, int64_t tiles) {
  const int64_t fragment = int64_t{blockIdx.x} * kProjectWarps + threadIdx.x / kWarpThreads;
  const int64_t chunks = work.pieces * kPieceChunks, chunk = fragment / tiles % chunks;
  const int64_t tile = fragment / tiles / chunks * tiles + fragment % tiles;
  if (tile >= work.slabs * tiles) return;
  const ProjectShape& shape = args.shape;
  float value[kLaneChannels];
  load_weights<kWhole>(static_cast<const float*>(args.phi),
                       static_cast<const float*>(args.norm_weight), shape.n_logits, shape.n_streams,
                       shape.width, tile * kTileLogits + lane() / 4,
                       ChunkPosition(chunk, shape.width), value);
  uint4 words[kFloatPieces];
  split_weights(value, words);
#pragma unroll
  for (int p = 0; p < kFloatPieces; ++p) {
    work.weights[weight_fragment(0, 1, fragment, p) + lane()] = words[p];
  }
}

/// Dynamic shared memory: X in slots [word][thread].
template <class S, int kTiles>
struct StageStorage {
  static constexpr int kWords = kStageChunks * kTiles * kFloatPieces * kWarpThreads;
  static constexpr int kSlots = kChunkWords<S, kWarpGroups<S>>;
  uint4 weight[kStages][kWords];
  uint4 x[kStages][kStageChunks][kSlots][kProjectThreads];
};

/// As the plan counts it.
template <class S, int kTiles>
constexpr bool kIsPlanned =
    sizeof(StageStorage<S, kTiles>) ==
    project_stage_bytes(kTiles, sizeof(S), 2 * kWarpGroups<S>, kProjectThreads);

template <class S, int kTiles, bool kWhole>
__global__ void __launch_bounds__(kProjectThreads, kBlocksPerMultiprocessor)
    project_forward_kernel(const ProjectArgs args, const ProjectWork work) {
  constexpr int kChunks = kStageChunks;
  constexpr int kGroups = kWarpGroups<S>;
  constexpr int kPieceStages = kPieceChunks / kChunks;
  using Storage = StageStorage<S, kTiles>;
  static_assert(kIsPlanned<S, kTiles>);
  auto& storage = *dynamic_shared<Storage>();
  const ProjectShape& shape = args.shape;
  const int64_t begin = blockIdx.y * work.pieces_per_part;
  const int pieces = static_cast<int>(
      work.pieces - begin < work.pieces_per_part ? work.pieces - begin : work.pieces_per_part);
  const auto first_token = [&](unsigned block) {
    const int64_t warp =
        block / static_cast<unsigned>(work.slabs) * kProjectWarps + threadIdx.x / kWarpThreads;
    return warp * (kGroups * kGroupTokens);
  };

  // The slab's stages lie one after the other.
  const uint4* from =
      work.weights + threadIdx.x +
      (blockIdx.x % work.slabs * work.pieces + begin) * (kPieceStages * Storage::kWords);
  int to_copy = pieces * kPieceStages, now = 0, next = 0;  // now, next: buffers
  TokenWalk<S, kGroups> walk(args, first_token(blockIdx.x), begin * kPieceChunks);
  const auto copy_stage = [&] {
    if (to_copy > 0) {
      uint4* to = storage.weight[next] + threadIdx.x;
#pragma unroll
      for (int k = 0; k < Storage::kWords; k += kProjectThreads) {
        if (k + static_cast<int>(threadIdx.x) < Storage::kWords) copy_async(to + k, from + k);
      }
#pragma unroll
      for (int k = 0; k < kChunks; ++k) {
        walk.template request<kWhole>(args, &storage.x[next][k][0][threadIdx.x], kProjectThreads);
      }
    }
    end_copy_group();
    from += Storage::kWords;
    --to_copy;
    next = next == kStages - 1 ? 0 : next + 1;
  };

  SkinnySums<kGroups, kTiles> sums;
  for (int k = 0; k < kStages - 1; ++k) copy_stage();
  bool written = false;
  int segment_left = static_cast<int>(work.pieces_per_segment);
#pragma unroll 1
  for (int piece = 0; piece < pieces; ++piece) {
#pragma unroll 1
    for (int stage = 0; stage < kPieceStages; ++stage) {
      finish_copies<kStages - 2>();
      block_barrier();  // the stage has come, and all are done with the one before
      const uint4* buffer = storage.weight[now] + lane();
      const auto& slots = storage.x[now];
      now = now == kStages - 1 ? 0 : now + 1;
      copy_stage();
#pragma unroll
      for (int k = 0; k < kChunks; ++k) {
        ChunkOfTokens<S> x[kGroups];
        take_slots(&slots[k][0][threadIdx.x], kProjectThreads, x);
        sums.add_chunk(
            x, [&](int tile, int p) { return buffer[weight_fragment(k, kTiles, tile, p)]; });
      }
    }
    sums.finish_piece();
    if (--segment_left > 0 && piece + 1 < pieces) continue;
    segment_left = static_cast<int>(work.pieces_per_segment);
    const unsigned block = opaque(blockIdx.x);
    const int64_t first = first_token(block);
    const int64_t slab = block % static_cast<unsigned>(work.slabs);
    sums.take([&](int token, int logit, float value) {
      const int64_t t = first + token, k = slab * kTiles * kTileLogits + logit;
      if (t >= shape.tokens || k >= shape.n_logits || (logit < 0 && slab > 0)) return;
      float* sum = work.sum(shape, blockIdx.y, t, logit < 0 ? shape.n_logits : k);
      *sum = written ? *sum + value : value;
    });
    written = true;
  }
}

template <int kTiles>
struct DirectStorage {
  static constexpr int kValues = kTiles * 4 + 2;
  float value[kPieceChunks][kValues][kWarpThreads];  // of every warp's lanes, squares last
};

/// Few tokens: a block sums a piece, which is a part, and each of its warps one chunk.
template <class S, int kTiles, bool kWhole>
__global__ void __launch_bounds__(kDirectThreads, blocks_at_once(0))
    project_direct_kernel(const ProjectArgs args, const ProjectWork work) {
  using Storage = DirectStorage<kTiles>;
  auto& storage = shared<Storage>();
  const ProjectShape& shape = args.shape;
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int64_t slab = blockIdx.x % work.slabs, piece = blockIdx.y;
  const int64_t first = blockIdx.x / work.slabs * kGroupTokens;
  const int64_t first_logit = slab * kTiles * kTileLogits;

  TokenWalk<S, 1> walk(args, first, piece * kPieceChunks + warp);
  ChunkOfTokens<S> x[1];
  walk.template load<kWhole>(args, x);
  const ChunkPosition at(piece * kPieceChunks + warp, shape.width);
  float weight[kTiles][kLaneChannels];
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    load_weights<kWhole>(static_cast<const float*>(args.phi),
                         static_cast<const float*>(args.norm_weight), shape.n_logits,
                         shape.n_streams, shape.width,
                         first_logit + tile * kTileLogits + lane() / 4, at, weight[tile]);
  }
  uint4 words[kTiles][kFloatPieces];
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) split_weights(weight[tile], words[tile]);
  SkinnySums<1, kTiles> sums;
  sums.add_chunk(x, [&](int tile, int p) { return words[tile][p]; });
#pragma unroll
  for (int k = 0; k < kTiles * 4; ++k) {
    storage.value[warp][k][lane()] = sums.piece[0][k / 4][k % 4];
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    storage.value[warp][kTiles * 4 + r][lane()] = sums.piece_square[0][r];
  }
  block_barrier();
  for (int k = warp; k < Storage::kValues; k += kPieceChunks) {
    float sum = storage.value[0][k][lane()];
#pragma unroll
    for (int chunk = 1; chunk < kPieceChunks; ++chunk) sum += storage.value[chunk][k][lane()];
    const bool is_square = k >= kTiles * 4;
    if (is_square) {
      sum += warp_shuffle_xor(sum, 1);
      sum += warp_shuffle_xor(sum, 2);
    }
    const int row = is_square ? k - kTiles * 4 : k % 4 / 2;
    const int64_t t = first + lane() / 4 + 8 * row;
    const int64_t logit = first_logit + k / 4 * kTileLogits + lane() % 4 * 2 + k % 2;
    if (t >= shape.tokens) continue;
    if (is_square) {
      if (slab == 0 && lane() % 4 == 0) *work.sum(shape, piece, t, shape.n_logits) = sum;
    } else if (logit < shape.n_logits) {
      *work.sum(shape, piece, t, logit) = sum;
    }
  }
}

/// A warp adds the parts of a token, a lane those of a logit or of the squares.
__global__ void __launch_bounds__(kFinishThreads)
    project_finish_kernel(const ProjectArgs args, const ProjectWork work) {
  const ProjectShape& shape = args.shape;
  const int64_t columns = shape.n_logits + 1, stride = shape.tokens * columns;
  const int64_t t = (int64_t{blockIdx.x} * kFinishThreads + threadIdx.x) / kWarpThreads;
  if (t >= shape.tokens) return;
  const bool in_pieces = work.pieces_per_part == 1;
  const int64_t per_segment = in_pieces ? work.pieces_per_segment : work.parts;
  for (int64_t k = lane(); k < columns; k += kWarpThreads) {
    float sum = 0;
    for (int64_t part = 0; part < work.parts; part += per_segment) {
      const int64_t left = work.parts - part;
      sum += add_rows(work.sum(shape, part, t, k), left < per_segment ? left : per_segment, stride);
    }
    if (k < shape.n_logits) {
      static_cast<float*>(args.logits)[t * shape.n_logits + k] = sum;
    } else {
      const float mean_square = sum / static_cast<float>(shape.n_streams * shape.width);
      static_cast<float*>(args.inv_rms)[t] =
          inverse_rms(mean_square, static_cast<float>(args.eps), args.eps_position);
    }
  }
}

/// Calls f(constant tiles, constant whole) for the kernels that exist.
template <class F>
Status dispatch_tiles(const ProjectPlan& plan, const F& f) {
  if (!plan.whole_vectors) return f(std::integral_constant<int, 2>{}, std::false_type{});
  switch (plan.tiles) {
    case 1:
      return f(std::integral_constant<int, 1>{}, std::true_type{});
    case 2:
      return f(std::integral_constant<int, 2>{}, std::true_type{});
    case 3:
      return f(std::integral_constant<int, 3>{}, std::true_type{});
    default:
      return f(std::integral_constant<int, 4>{}, std::true_type{});
  }
}

}  // namespace

Status project_forward(const ProjectArgs& args, Stream stream) {
  const ProjectShape& shape = args.shape;
  const int64_t alignment =
      std::min({row_alignment(args.x, shape.tokens, shape.n_streams, shape.dtype),
                row_alignment({args.phi, 0}, 1, DType::kFloat32),
                row_alignment({args.norm_weight, 0}, 1, DType::kFloat32)});
  return project_forward(args, plan_project(shape, alignment), stream);
}

Status project_forward(const ProjectArgs& args, const ProjectPlan& plan, Stream stream) {
  const ProjectShape& shape = args.shape;
  if (shape.dtype == DType::kFloat64) return Status::kUnsupportedDType;
  if (shape.tokens == 0) return Status::kOk;
  const bool direct = plan.split == ProjectSplit::kDirect;
  float* scratch = static_cast<float*>(args.workspace);
  const ProjectWork work{plan.slabs,
                         plan.pieces,
                         plan.pieces_per_segment,
                         plan.pieces_per_part,
                         plan.parts,
                         reinterpret_cast<uint4*>(scratch),
                         scratch + plan.weight_floats};
  Status status = Status::kOk;
  if (!direct) {
    status = dispatch_bool(plan.whole_vectors, [&](auto whole) {
      return launch(project_weights_kernel<decltype(whole)::value>, plan.weights, stream, args,
                    work, int64_t{plan.tiles});
    });
  }
  if (status != Status::kOk) return status;
  status = dispatch_dtype(shape.dtype, [&](auto dtype) {
    return dispatch_tiles(plan, [&](auto tiles, auto whole) {
      using S = typename decltype(dtype)::type;
      constexpr int kTiles = decltype(tiles)::value;
      constexpr bool kWhole = decltype(whole)::value;
      const auto kernel = direct ? project_direct_kernel<S, kTiles, kWhole>
                                 : project_forward_kernel<S, kTiles, kWhole>;
      return launch(kernel, plan.forward, stream, args, work);
    });
  });
  if (status != Status::kOk) return status;
  return launch(project_finish_kernel, plan.finish, stream, args, work);
}

}  // namespace hyperstreams::cuda
