// Launch plan of read; what each number means stands in the contract.
#include "arithmetic.h"
#include "hyperstreams/plan.h"

namespace hyperstreams::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarp = 32;
// Up to this many 16-byte vectors a row is read by one warp, so that short rows keep all threads
// busy and need no block barrier.
constexpr int64_t kVectorsPerWarp = 128;
// Static grad_h_pre: enough blocks for the largest devices, few enough to sum in one more block.
constexpr int64_t kMaxPartials = 1024;

/// Threads along the channels: the most of 32..256 that leaves at most an eighth of them idle.
int forward_block_x(int64_t vectors) {
  if (vectors <= kWarp) return power_of_two_above(vectors, kWarp);
  int threads = kThreads;
  while (threads > kWarp && ceil_div(vectors, threads) * threads - vectors > vectors / 8) {
    threads /= 2;
  }
  return threads;
}

LaunchShape plan_forward(int64_t tokens, int64_t vectors) {
  LaunchShape shape;
  shape.block_x = forward_block_x(vectors);
  shape.block_y = power_of_two_above(tokens, kThreads / shape.block_x);
  shape.grid_x = ceil_div(vectors, shape.block_x);
  const int64_t token_blocks = ceil_div(tokens, shape.block_y);
  shape.grid_y = token_blocks < kMaxGridY ? token_blocks : kMaxGridY;
  return shape;
}

}  // namespace

ReadPlan plan_read(int64_t tokens, int64_t width, DType dtype, int64_t alignment, bool is_static) {
  ReadPlan plan;
  plan.vector = 16 / element_bytes(dtype);
  plan.whole_vectors = alignment >= 16 && width % plan.vector == 0;
  const int64_t vectors = ceil_div(width, plan.vector);
  plan.forward = plan_forward(tokens, vectors);

  plan.threads_per_token = vectors <= kVectorsPerWarp ? kWarp : kThreads;
  const int64_t tokens_at_once = kThreads / plan.threads_per_token;
  const int64_t most_blocks = is_static ? kMaxPartials : kMaxGridX;
  const int64_t needed = ceil_div(tokens, most_blocks);
  plan.tokens_per_block = needed > tokens_at_once ? needed : tokens_at_once;
  plan.backward = {ceil_div(tokens, plan.tokens_per_block), 1, kThreads, 1};
  plan.partials = is_static ? plan.backward.grid_x : 0;
  return plan;
}

}  // namespace hyperstreams::cuda
