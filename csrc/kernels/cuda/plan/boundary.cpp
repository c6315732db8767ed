// Launch plan of boundary; what each number means stands in the contract.
#include <algorithm>

#include "arithmetic.h"
#include "hyperstreams/plan.h"
#include "layout.h"
#include "rows.h"

namespace hyperstreams::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = 8;
constexpr int64_t kWarp = 32;
constexpr int kMaxFusedStreams = 4;
constexpr int64_t kChunk = 32;
constexpr int64_t kPieces = 8;
// Parts of the channels: enough blocks where the tokens alone do not fill a device, few enough that
// their sums are a small part of the bytes moved.
constexpr int64_t kMaxParts = 8;
constexpr int64_t kGroupTokens = 16;
// Two blocks on each of 132 multiprocessors.
constexpr int64_t kFullDevice = 264;
constexpr int kDotThreads = 128;
// Vectors of 16 bytes that a warp sums for one token at most.
constexpr int64_t kPieceVectors = 128;
// Up to so many tokens, phi is read once anyway.
constexpr int64_t kDirectTokens = 512;
constexpr int64_t kMaxPartials = 1024;
constexpr int64_t kSlab = 128;
constexpr int64_t kWarpChannels = 16;
constexpr int64_t kMaxPhiBytes = int64_t{32} << 20;
// 4 words of each of 3 pieces, for every lane.
constexpr int64_t kFragmentFloats = 3 * kWarp * 4;

/// Logits in 8s that the kernels for this n take.
int64_t most_tiles(int n_streams) { return n_streams == 4 ? 4 : n_streams == 3 ? 2 : 1; }

/// The read's sums: tokens and pieces of their channels, whose places width and dtype fix.
void plan_dots(const BoundaryShape& s, BoundaryPlan& plan) {
  const int64_t vectors = row_vectors(s.width, s.dtype, 16).count;
  const int64_t pieces = ceil_div(vectors, kPieceVectors);
  plan.piece_vectors = ceil_div(ceil_div(vectors, pieces), kWarp) * kWarp;
  plan.dot_pieces = ceil_div(vectors, plan.piece_vectors);
  plan.dots = {std::min(ceil_div(s.tokens * plan.dot_pieces, kDotThreads / kWarp), kMaxGridX), 1,
               kDotThreads, 1};
}

void plan_forward(const BoundaryShape& s, BoundaryPlan& plan) {
  const int64_t rows = s.tokens * (s.per_stream ? s.n_streams : 1);
  const int64_t streams = s.per_stream ? 1 : s.n_streams;
  plan.direct =
      s.per_stream ? !plan.whole_vectors : !plan.whole_vectors || s.tokens <= kDirectTokens;
  plan.chunks = ceil_div(s.width, kChunk);
  const int64_t parts = std::clamp<int64_t>(ceil_div(plan.chunks, kPieces), 1, kMaxParts);
  plan.chunks_per_piece = ceil_div(plan.chunks, kPieces * parts);
  plan.parts = ceil_div(plan.chunks, kPieces * plan.chunks_per_piece);
  const int64_t many = ceil_div(s.tokens, kGroupTokens * kWarps);
  plan.pieces_by_warp = many * plan.parts < kFullDevice / 2;
  plan.write = {plan.pieces_by_warp ? ceil_div(s.tokens, kGroupTokens) : many, plan.parts, kThreads,
                1};
  const int64_t fragments = streams * plan.chunks * plan.tiles;
  plan.weights = {ceil_div(fragments, kWarps), 1, kThreads, 1};
  // Room for the fragments where any alignment needs them: offsets do not depend on it.
  const bool may_need_fragments =
      s.logits > 0 && s.width % 8 == 0 && (s.per_stream || s.tokens > kDirectTokens);
  ScratchLayout layout;
  plan.forward.weights = layout.take(may_need_fragments ? fragments * kFragmentFloats : 0);
  plan.forward.sums = layout.take(s.logits == 0 ? 0 : plan.parts * rows * (s.logits + 1));
  plan.forward.map = layout.take(plan.coefficients.forward.scratch);
  plan.forward.size = layout.size();
}

void plan_backward(const BoundaryShape& s, BoundaryPlan& plan) {
  const int64_t rows = s.tokens * (s.per_stream ? s.n_streams : 1);
  const int64_t streams = s.per_stream ? 1 : s.n_streams, n = s.n_streams;
  const int64_t features = streams * s.width;
  plan.slabs = ceil_div(s.width, kSlab);
  const int64_t phi_bytes = std::max<int64_t>(s.logits * features, s.width) * 4;
  const int64_t by_memory = std::max<int64_t>(kMaxPhiBytes / phi_bytes, 1);
  const int64_t by_tokens = ceil_div(s.tokens, 4 * kGroupTokens);
  const int64_t parts =
      std::max<int64_t>(std::min({by_memory, by_tokens, kFullDevice / plan.slabs}), 1);
  plan.tokens_per_part =
      std::max<int64_t>(ceil_div(ceil_div(s.tokens, parts), kGroupTokens), 1) * kGroupTokens;
  plan.token_parts = ceil_div(s.tokens, plan.tokens_per_part);
  // Of a warp's 16 channels, the sums of 16 tokens, twice; and a thread's share of n products of
  // [16 channels, 8 logits] for every tile.
  const int64_t sums = n * n + 2 * n;
  const int64_t tiles =
      plan.whole_vectors && plan.tiles <= 3 && n == 4 ? 3 : most_tiles(s.n_streams);
  const int64_t shared =
      2 * kWarps * kGroupTokens * ceil_div(sums, 4) * 16 + n * tiles * kThreads * 16;
  plan.gradients = {plan.slabs, plan.token_parts, kThreads, 1, static_cast<int>(shared)};
  const int64_t steps = ceil_div(s.logits, 16);
  const int64_t fragments = plan.slabs * (kSlab / kWarpChannels) * streams * steps;
  plan.gradient_weights = {ceil_div(fragments, kWarps), 1, kThreads, 1};
  plan.tokens_per_sum = std::max<int64_t>(ceil_div(s.tokens, kMaxPartials), kWarps);
  plan.sums = {ceil_div(s.tokens, plan.tokens_per_sum), 1, kThreads, 1};
  plan.phi = {ceil_div(features, kWarp), 1, static_cast<int>(kWarp), kWarps};
  ScratchLayout layout;
  plan.backward.weights = layout.take(fragments * kFragmentFloats);
  plan.backward.grad_logits = layout.take(rows * s.logits);
  plan.backward.factors = layout.take(s.logits == 0 ? 0 : rows);
  plan.backward.dots = layout.take(s.logits == 0 ? 0 : plan.dot_pieces * s.tokens * n);
  plan.backward.sums = layout.take(plan.slabs * s.tokens * sums);
  plan.backward.phi = layout.take(plan.token_parts * s.logits * features);
  plan.backward.bias = layout.take(plan.token_parts * s.width);
  plan.backward.coefficients = layout.take(plan.coefficients.partials * 4 * s.coefficients);
  plan.backward.tokens = layout.take(plan.sums.grid_x * 2 * sums);
  plan.backward.map = layout.take(plan.coefficients.backward.scratch);
  plan.backward.size = layout.size();
}

}  // namespace

BoundaryShape boundary_shape(int64_t tokens, int n_streams, int64_t width, DType dtype,
                             const CoefficientSettings* next) {
  BoundaryShape shape = {};
  shape.tokens = tokens;
  shape.n_streams = n_streams;
  shape.width = width;
  shape.dtype = dtype;
  if (!next) return shape;
  shape.coefficients = 2 * n_streams + mix_logit_count(next->map, next->map_settings, n_streams);
  shape.per_stream = next->per_stream;
  shape.logits = next->per_stream ? 2 + n_streams : shape.coefficients;
  shape.single = plan_coefficients(tokens, *next);
  return shape;
}

BoundaryPlan plan_boundary(const BoundaryShape& s, int64_t alignment) {
  BoundaryPlan plan = {};
  const int64_t tiles = ceil_div(s.logits, 8);
  plan.fused = s.n_streams <= kMaxFusedStreams && tiles <= most_tiles(s.n_streams);
  if (!plan.fused) {
    plan.forward.size = plan_boundary_chain(s, false).size;
    plan.backward.size = plan_boundary_chain(s, true).size;
    return plan;
  }
  plan.whole_vectors = alignment >= 16 && s.width % 8 == 0;
  plan.per_stream = s.per_stream;
  plan.tiles = static_cast<int>(s.per_stream                     ? 1
                                : s.n_streams == 4 && tiles <= 3 ? 3
                                                                 : most_tiles(s.n_streams));
  if (s.logits > 0) plan.coefficients = s.single;
  plan_dots(s, plan);
  plan_forward(s, plan);
  plan_backward(s, plan);
  return plan;
}

}  // namespace hyperstreams::cuda
