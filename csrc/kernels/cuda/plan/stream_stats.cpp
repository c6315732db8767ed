// Launch plan of stream_stats; what each number means stands in the contract.
#include <algorithm>

#include "arithmetic.h"
#include "rows.h"

namespace hyperstreams::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarp = 32;
// A warp takes up to two tokens at a time.
constexpr int64_t kTokensAtOnce = 2 * kThreads / kWarp;
// Enough blocks for the largest devices, few enough to sum in one more block.
constexpr int64_t kMaxPartials = 1024;

}  // namespace

StreamStatsPlan plan_stream_stats(int64_t tokens, int64_t width, DType dtype, int64_t alignment) {
  const RowVectors vectors = row_vectors(width, dtype, alignment);
  const int64_t tokens_per_block = std::max(ceil_div(tokens, kMaxPartials), kTokensAtOnce);
  const int64_t blocks = ceil_div(tokens, tokens_per_block);
  return {vectors.size, vectors.whole, {kWarp, tokens_per_block, {blocks, 1, kThreads, 1}, blocks}};
}

}  // namespace hyperstreams::cuda
