#include "rows.h"

#include <algorithm>

#include "arithmetic.h"

namespace hyperstreams::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarp = 32;
// Up to this many 16-byte vectors a row is read by one warp, so that short rows keep all threads
// busy and need no block barrier.
constexpr int64_t kVectorsPerWarp = 128;
// Sums over tokens: enough blocks for the largest devices, few enough to sum in one more block.
constexpr int64_t kMaxPartials = 1024;
// Partial rows of channels take at most this many bytes, or else are one row.
constexpr int64_t kMaxColumnBytes = int64_t{32} << 20;
// Tokens that a thread sums at least, where there are so many.
constexpr int64_t kTokensPerThread = 4;

/// Threads along the channels: the most of 32..256 that leaves at most an eighth of them idle.
int threads_along(int64_t vectors) {
  if (vectors <= kWarp) return power_of_two_above(vectors, kWarp);
  int threads = kThreads;
  while (threads > kWarp && ceil_div(vectors, threads) * threads - vectors > vectors / 8) {
    threads /= 2;
  }
  return threads;
}

}  // namespace

RowVectors row_vectors(int64_t width, DType dtype, int64_t alignment) {
  const int size = 16 / element_bytes(dtype);
  return {size, alignment >= 16 && width % size == 0, ceil_div(width, size)};
}

LaunchShape plan_vector_threads(int64_t tokens, int64_t vectors) {
  LaunchShape shape;
  shape.block_x = threads_along(vectors);
  shape.block_y = power_of_two_above(tokens, kThreads / shape.block_x);
  shape.grid_x = ceil_div(vectors, shape.block_x);
  shape.grid_y = std::min(ceil_div(tokens, shape.block_y), kMaxGridY);
  return shape;
}

OwnerPlan plan_owners(int64_t tokens, int64_t vectors, bool sums_tokens) {
  OwnerPlan plan;
  plan.threads_per_token = vectors <= kVectorsPerWarp ? kWarp : kThreads;
  const int64_t tokens_at_once = kThreads / plan.threads_per_token;
  const int64_t most_blocks = sums_tokens ? kMaxPartials : kMaxGridX;
  plan.tokens_per_block = std::max(ceil_div(tokens, most_blocks), tokens_at_once);
  plan.launch = {ceil_div(tokens, plan.tokens_per_block), 1, kThreads, 1};
  plan.partials = sums_tokens ? plan.launch.grid_x : 0;
  return plan;
}

ColumnPlan plan_columns(int64_t tokens, int64_t rows, int64_t vectors, int size) {
  ColumnPlan plan;
  plan.launch.block_x = power_of_two_above(vectors, kWarp);
  plan.launch.block_y = kThreads / plan.launch.block_x;
  plan.blocks_per_row = ceil_div(vectors, plan.launch.block_x);
  plan.launch.grid_x = rows * plan.blocks_per_row;
  const int64_t by_tokens = ceil_div(tokens, plan.launch.block_y * kTokensPerThread);
  const int64_t by_blocks = std::max<int64_t>(kMaxPartials / plan.launch.grid_x, 1);
  const int64_t by_memory = std::max<int64_t>(kMaxColumnBytes / (rows * vectors * size * 4), 1);
  const int64_t most = std::min({by_tokens, by_blocks, by_memory});
  plan.tokens_per_part = tokens == 0 ? 1 : ceil_div(tokens, most);
  plan.parts = ceil_div(tokens, plan.tokens_per_part);
  plan.launch.grid_y = plan.parts;
  return plan;
}

}  // namespace hyperstreams::cuda
