// Launch plan of project's backward; what each number means stands in the contract.
#include <algorithm>

#include "arithmetic.h"
#include "hyperstreams/plan.h"

namespace hyperstreams::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = 4;
constexpr int kColumnBytes = 128;
constexpr int kTileLogits = 8;
constexpr int kMaxTiles = 4;
constexpr int kMaskedTiles = 2;
constexpr int64_t kStepTokens = 16;
constexpr int64_t kHeldTokens = 32;
constexpr int kFinishChannels = 32;
constexpr int64_t kFinishRows = 32;
// Blocks: three for each multiprocessor of the largest present devices. Each leaves as many bytes
// of partial sums as it holds, so more of them cost traffic.
constexpr int64_t kBlocks = 396;
// Tokens of a part at least, where there are so many.
constexpr int64_t kPartTokens = 64;
// Partial sums take at most this many bytes, or else are one row.
constexpr int64_t kMaxPartialBytes = int64_t{32} << 20;

}  // namespace

ProjectBackwardPlan plan_project_backward(const ProjectShape& shape, int64_t alignment) {
  const int vector = 16 / element_bytes(shape.dtype);
  const int64_t tiles = ceil_div(shape.n_logits, kTileLogits);
  ProjectBackwardPlan plan;
  plan.whole_vectors = alignment >= 16 && shape.width % vector == 0;
  plan.together = tiles <= (plan.whole_vectors ? kMaxTiles : kMaskedTiles);
  // Masked kernels exist with two tiles alone, those for one product with the most.
  plan.tiles = !plan.together        ? kMaxTiles
               : !plan.whole_vectors ? kMaskedTiles
                                     : static_cast<int>(tiles);
  plan.slabs = ceil_div(tiles, kMaxTiles);
  plan.channels = kColumnBytes / element_bytes(shape.dtype);
  plan.columns = shape.n_streams * ceil_div(shape.width, plan.channels);
  const int64_t blocks = ceil_div(plan.columns, kWarps);
  const int64_t row = shape.n_logits * plan.columns * plan.channels;
  const int64_t by_blocks = std::max<int64_t>(kBlocks / (blocks * plan.slabs), 1);
  const int64_t by_memory = std::max<int64_t>(kMaxPartialBytes / (row * 4), 1);
  const int64_t by_tokens = ceil_div(shape.tokens, kPartTokens);
  const int64_t parts = std::max<int64_t>(std::min({by_blocks, by_memory, by_tokens}), 1);
  const int64_t steps = std::max<int64_t>(ceil_div(shape.tokens, kStepTokens), 1);
  plan.tokens_per_part = ceil_div(steps, parts) * kStepTokens;
  plan.parts = ceil_div(shape.tokens, plan.tokens_per_part);
  plan.walk = {blocks, plan.parts * plan.slabs, kThreads, 1};
  plan.grad_x = {plan.together ? 0 : blocks * ceil_div(shape.tokens, kHeldTokens), 1, kThreads, 1};
  plan.finish = {ceil_div(shape.n_streams * shape.width, kFinishChannels), 1, kFinishChannels,
                 static_cast<int>(std::min(shape.n_logits, kFinishRows))};
  plan.workspace = plan.parts * row;
  return plan;
}

}  // namespace hyperstreams::cuda
