// Launch plan of boundary; what each number means stands in the contract.
#include <algorithm>

#include "arithmetic.h"
#include "gradients.h"
#include "hyperstreams/plan.h"
#include "layout.h"
#include "rows.h"
#include "staged.h"

namespace hyperstreams::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = 8;
constexpr int64_t kWarp = 32;
constexpr int kMaxFusedStreams = 4;
constexpr int64_t kChunk = 32;
// Parts of the channels: enough blocks where the tokens alone do not fill a device, few enough that
// their sums are a small part of the bytes moved. With 3 of them and 12 warps of 16 tokens, 2^13
// tokens are 129 blocks.
constexpr int64_t kFewParts = 3;
constexpr int64_t kMaxParts = 6;
constexpr int64_t kFewPartsChunks = 48;
constexpr int64_t kGroupTokens = 16;
constexpr int64_t kMultiprocessors = 132;
constexpr int kDotThreads = 128;
// Vectors of 16 bytes that a warp sums for one token at most.
constexpr int64_t kPieceVectors = 128;
// Up to so many tokens, phi is read once anyway.
constexpr int64_t kDirectTokens = 512;
constexpr int64_t kMaxPartials = 1024;
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

/// Warps of a block and parts that it takes so that the multiprocessor with the most work has the
/// least; of equals, the larger blocks, which read W the fewest times.
void plan_staged_write(const BoundaryShape& s, BoundaryPlan& plan) {
  const auto shared = [&](int64_t w) {
    return staged_write_bytes(s.n_streams, plan.tiles, s.per_stream, element_bytes(s.dtype),
                              static_cast<int>(w));
  };
  int64_t most_warps = s.dtype == DType::kBFloat16 ? 12 : 8;
  while (most_warps > 1 && shared(most_warps) > s.shared_limit) --most_warps;
  int64_t warps = 0, least = 0;
  for (int64_t w = most_warps; w >= 1; --w) {
    for (int64_t parts = plan.parts; parts >= 1; --parts) {
      if (plan.parts % parts != 0) continue;
      const int64_t blocks = ceil_div(s.tokens, w * kGroupTokens) * (plan.parts / parts);
      const int64_t load = ceil_div(blocks, kMultiprocessors) * w * parts;
      if (warps > 0 && load >= least) continue;
      warps = w;
      least = load;
      plan.parts_per_block = parts;
    }
  }
  plan.write = {ceil_div(s.tokens, warps * kGroupTokens), plan.parts / plan.parts_per_block,
                static_cast<int>(warps * kWarp), 1, shared(warps)};
}

void plan_forward(const BoundaryShape& s, BoundaryPlan& plan) {
  const int64_t rows = s.tokens * (s.per_stream ? s.n_streams : 1);
  const int64_t streams = s.per_stream ? 1 : s.n_streams;
  plan.direct = !plan.whole_vectors || s.tokens <= kDirectTokens;
  plan.chunks = ceil_div(s.width, kChunk);
  const int64_t parts = plan.chunks <= kWarps            ? 1
                        : plan.chunks <= kFewPartsChunks ? kFewParts
                                                         : kMaxParts;
  plan.chunks_per_part = ceil_div(plan.chunks, parts);
  plan.parts = ceil_div(plan.chunks, plan.chunks_per_part);
  plan.parts_per_block = 1;
  const int64_t many = ceil_div(s.tokens, kGroupTokens * kWarps);
  plan.chunks_by_warp = plan.direct && many * plan.parts < kMultiprocessors;
  plan.write = {plan.chunks_by_warp ? ceil_div(s.tokens, kGroupTokens) : many, plan.parts, kThreads,
                1};
  if (!plan.direct) plan_staged_write(s, plan);
  const int64_t fragments = streams * plan.chunks * plan.tiles;
  plan.weights = {ceil_div(fragments, kWarps), 1, kThreads, 1};
  // Room for the fragments where any alignment needs them: offsets do not depend on it.
  const bool may_need_fragments = s.logits > 0 && s.width % 8 == 0 && s.tokens > kDirectTokens;
  ScratchLayout layout;
  plan.forward.weights = layout.take(may_need_fragments ? fragments * kFragmentFloats : 0);
  plan.forward.sums = layout.take(s.logits == 0 ? 0 : plan.parts * rows * (s.logits + 1));
  plan.forward.map = layout.take(plan.coefficients.forward.scratch);
  plan.forward.size = layout.size();
}

/// Parts of the tokens for blocks of `slabs`, so that few multiprocessors idle in the last round.
int64_t full_parts(int64_t slabs) {
  int64_t rounds = 1;
  const auto blocks = [&] { return kMultiprocessors * rounds / slabs * slabs; };
  while (rounds < 4 && 10 * blocks() < 9 * kMultiprocessors * rounds) ++rounds;
  return kMultiprocessors * rounds / slabs;
}

void plan_backward(const BoundaryShape& s, BoundaryPlan& plan) {
  const int64_t rows = s.tokens * (s.per_stream ? s.n_streams : 1);
  const int64_t streams = s.per_stream ? 1 : s.n_streams, n = s.n_streams;
  const int64_t features = streams * s.width;
  const int bytes = element_bytes(s.dtype);
  plan.slabs = ceil_div(s.width, kSlabChannels);
  const int64_t step_tokens = gradient_tokens(bytes);
  const int64_t phi_bytes = std::max<int64_t>(s.logits * features, s.width) * 4;
  const int64_t by_memory = std::max<int64_t>(kMaxPhiBytes / phi_bytes, 1);
  const int64_t by_tokens = ceil_div(s.tokens, 3 * step_tokens);
  const int64_t parts =
      std::max<int64_t>(std::min({by_memory, by_tokens, full_parts(plan.slabs)}), 1);
  plan.tokens_per_part =
      std::max<int64_t>(ceil_div(ceil_div(s.tokens, parts), step_tokens), 1) * step_tokens;
  plan.token_parts = ceil_div(s.tokens, plan.tokens_per_part);
  const int tiles = plan.whole_vectors && plan.tiles <= 3 && n == 4
                        ? 3
                        : static_cast<int>(most_tiles(s.n_streams));
  plan.gradients = {plan.slabs, plan.token_parts, static_cast<int>(step_tokens) * kSlabLanes, 1,
                    gradient_shared_bytes(s.n_streams, tiles, bytes)};
  const int64_t steps = ceil_div(s.logits, kMatrixSize);
  const int64_t fragments = plan.slabs * kSlabMatrices * streams * steps;
  plan.weight_blocks = ceil_div(fragments, kWarps);
  plan.groups = ceil_div(s.tokens, step_tokens) * (step_tokens / kMatrixSize);
  plan.group_vectors = group_vectors(
      s.n_streams, gradient_pieces(bytes), s.per_stream ? s.n_streams : static_cast<int>(steps),
      s.per_stream ? s.n_streams : static_cast<int>(ceil_div(s.logits, 8)));
  plan.gradient_weights = {
      plan.weight_blocks + ceil_div(plan.groups * plan.group_vectors, kThreads), 1, kThreads, 1};
  const int64_t at_once = sum_tokens(s.n_streams);
  plan.tokens_per_sum =
      std::max<int64_t>(ceil_div(ceil_div(s.tokens, kMaxPartials), at_once), 1) * at_once;
  const int64_t sums = n * n + 2 * n;
  plan.sums = {ceil_div(s.tokens, plan.tokens_per_sum), 1, kSumThreads, 1};
  plan.phi = {ceil_div(features, kWarp), 1, static_cast<int>(kWarp),
              static_cast<int>(std::max<int64_t>(s.logits, 1))};
  ScratchLayout layout;
  plan.backward.weights = layout.take(fragments * kFragmentFloats);
  plan.backward.groups = layout.take(plan.groups * plan.group_vectors * 4);
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
                             const CoefficientSettings* next, int shared_limit) {
  BoundaryShape shape = {};
  shape.tokens = tokens;
  shape.n_streams = n_streams;
  shape.width = width;
  shape.dtype = dtype;
  shape.shared_limit = shared_limit;
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
  const int most = static_cast<int>(most_tiles(s.n_streams));
  plan.fused = s.n_streams <= kMaxFusedStreams && tiles <= most &&
               gradient_shared_bytes(s.n_streams, most, element_bytes(s.dtype)) <= s.shared_limit;
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
