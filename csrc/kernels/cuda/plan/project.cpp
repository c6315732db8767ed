// Launch plan of project; what each number means stands in the contract.
#include <algorithm>

#include "arithmetic.h"
#include "hyperstreams/plan.h"
#include "staged.h"

namespace hyperstreams::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = 4;
constexpr int kChunk = 32;
constexpr int kPieceChunks = 8;
constexpr int kDirectThreads = kPieceChunks * 32;
constexpr int kFinishWarps = 8;
constexpr int kTileLogits = 8;
constexpr int kMaxTiles = 4;
constexpr int kMaskedTiles = 2;
// Segments of the sum: blocks along the channels where the tokens alone do not fill a device, few
// enough that their sums are a small part of the bytes moved.
constexpr int64_t kSegments = 4;
// Up to so many tokens a block takes 16 of them and a piece, and reads phi itself.
constexpr int64_t kDirectTokens = 512;
// Up to so many, a block takes a piece; beyond the second, blocks of tokens alone are plenty.
constexpr int64_t kPieceTokens = 2048;
constexpr int64_t kSegmentTokens = 65536;
// Tokens of a warp.
constexpr int64_t kWarpTokens = 16;
constexpr int64_t kWarpTokensOfBFloat = 32;

int64_t count_pieces(const ProjectShape& shape) {
  return ceil_div(shape.n_streams * ceil_div(shape.width, kChunk), kPieceChunks);
}

}  // namespace

ProjectPlan plan_project(const ProjectShape& shape, int64_t alignment) {
  ProjectSplit split = ProjectSplit::kWhole;
  if (shape.tokens <= kSegmentTokens) split = ProjectSplit::kSegments;
  if (count_pieces(shape) <= kMaxGridY) {
    if (shape.tokens <= kPieceTokens) split = ProjectSplit::kPieces;
    if (shape.tokens <= kDirectTokens) split = ProjectSplit::kDirect;
  }
  return plan_project(shape, alignment, split);
}

ProjectPlan plan_project(const ProjectShape& shape, int64_t alignment, ProjectSplit split) {
  const int64_t tiles = ceil_div(shape.n_logits, kTileLogits);
  const bool direct = split == ProjectSplit::kDirect;
  const int64_t warp_tokens = shape.dtype == DType::kBFloat16 ? kWarpTokensOfBFloat : kWarpTokens;
  const int64_t block_tokens = direct ? kWarpTokens : kWarps * warp_tokens;
  ProjectPlan plan;
  plan.whole_vectors = alignment >= 16 && shape.width % 8 == 0;
  plan.split = split;
  plan.slabs = ceil_div(tiles, plan.whole_vectors ? kMaxTiles : kMaskedTiles);
  plan.tiles = plan.whole_vectors ? static_cast<int>(ceil_div(tiles, plan.slabs)) : kMaskedTiles;
  plan.chunks = shape.n_streams * ceil_div(shape.width, kChunk);
  plan.pieces = count_pieces(shape);
  plan.pieces_per_segment = ceil_div(plan.pieces, kSegments);
  plan.pieces_per_part = split == ProjectSplit::kWhole      ? plan.pieces
                         : split == ProjectSplit::kSegments ? plan.pieces_per_segment
                                                            : 1;
  plan.parts = ceil_div(plan.pieces, plan.pieces_per_part);
  const int64_t fragments = plan.pieces * kPieceChunks * plan.slabs * plan.tiles;
  plan.weights = {ceil_div(fragments, kWarps), 1, kThreads, 1};
  plan.forward = {ceil_div(shape.tokens, block_tokens) * plan.slabs, plan.parts,
                  direct ? kDirectThreads : kThreads, 1};
  if (!direct) {
    // A lane has 2 of 16 tokens.
    const int lane_tokens = static_cast<int>(2 * warp_tokens / kWarpTokens);
    plan.forward.shared_bytes =
        project_stage_bytes(plan.tiles, element_bytes(shape.dtype), lane_tokens, kThreads);
  }
  const int64_t sums = shape.tokens * (shape.n_logits + 1);
  plan.finish = {ceil_div(shape.tokens, kFinishWarps), 1, kFinishWarps * 32, 1};
  // Enough for any tiles. Three pieces of 8 channels in 16 bytes for every lane.
  const int64_t padded_tiles = ceil_div(tiles, kMaxTiles) * kMaxTiles;
  plan.weight_floats = direct ? 0 : plan.pieces * kPieceChunks * padded_tiles * 3 * 32 * 4;
  plan.workspace = plan.weight_floats + plan.parts * sums;
  return plan;
}

}  // namespace hyperstreams::cuda
