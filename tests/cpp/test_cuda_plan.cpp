// Launch plans over random shapes: every token and channel is covered once, within the grid limits.
#include <gtest/gtest.h>

#include <random>

#include "hyperstreams/plan.h"
#include "kernel_testing.h"

namespace hyperstreams::cuda {
namespace {

constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};

void check_limits(const LaunchShape& shape) {
  EXPECT_GE(shape.grid_x, 1);
  EXPECT_GE(shape.grid_y, 1);
  EXPECT_LE(shape.grid_x, kMaxGridX);
  EXPECT_LE(shape.grid_y, kMaxGridY);
  const int threads = shape.block_x * shape.block_y;
  EXPECT_GE(threads, 1);
  EXPECT_LE(threads, 256);
}

void check_plan(int64_t tokens, int64_t width, DType dtype, int64_t alignment, bool is_static) {
  SCOPED_TRACE(::testing::Message()
               << "T=" << tokens << " C=" << width << " dtype=" << static_cast<int>(dtype)
               << " alignment=" << alignment << " static=" << is_static);
  const ReadPlan plan = plan_read(tokens, width, dtype, alignment, is_static);
  check_limits(plan.forward);
  check_limits(plan.backward);
  EXPECT_EQ(plan.vector * (dtype == DType::kFloat32 ? 4 : 2), 16);
  if (plan.whole_vectors) {
    EXPECT_EQ(alignment, 16);
    EXPECT_EQ(width % plan.vector, 0);
  }

  // Forward: the threads of x cover the channels, and no block of x is beyond them. Tokens are
  // walked in strides of grid_y * block_y, so any positive product covers them once.
  const int64_t per_block = int64_t{plan.forward.block_x} * plan.vector;
  EXPECT_GE(plan.forward.grid_x * per_block, width);
  EXPECT_LT((plan.forward.grid_x - 1) * per_block, width);
  EXPECT_LT((plan.forward.grid_y - 1) * plan.forward.block_y, tokens);

  // Backward: token ranges tile [0, tokens) and none is empty.
  const int64_t blocks = plan.backward.grid_x;
  EXPECT_GE(plan.tokens_per_block * blocks, tokens);
  EXPECT_LT(plan.tokens_per_block * (blocks - 1), tokens);
  EXPECT_EQ(plan.backward.block_x, 256);
  EXPECT_TRUE(plan.threads_per_token == 32 || plan.threads_per_token == 256);
  EXPECT_EQ(plan.partials, is_static ? blocks : 0);
  EXPECT_LE(plan.partials, 1024);

  // The split must not depend on how the memory is aligned.
  const ReadPlan other = plan_read(tokens, width, dtype, 2, is_static);
  EXPECT_EQ(other.tokens_per_block, plan.tokens_per_block);
  EXPECT_EQ(other.threads_per_token, plan.threads_per_token);
  EXPECT_EQ(other.partials, plan.partials);
}

TEST(CudaPlan, CoversEverythingOnceForRandomShapes) {
  std::mt19937_64 random(7);
  for (int trial = 0; trial < 20000; ++trial) {
    // Sizes of every magnitude up to 2^36 tokens and 2^30 channels.
    const int64_t tokens = 1 + static_cast<int64_t>(random() >> (28 + random() % 36));
    const int64_t width = 1 + static_cast<int64_t>(random() >> (34 + random() % 30));
    const int64_t alignment = int64_t{2} << random() % 4;
    check_plan(tokens, width, kDTypes[random() % 3], alignment, random() % 2 == 0);
    if (HasFailure()) return;
  }
}

TEST(CudaPlan, NoTokensNeedNoPartials) {
  EXPECT_EQ(plan_read(0, 64, DType::kFloat32, 16, true).partials, 0);
}

TEST(CudaPlan, PerTokenOrderDependsOnWidthAndDtypeAlone) {
  for (const DType dtype : kDTypes) {
    for (const int64_t width : {1, 512, 513, 1024, 1025, 4096}) {
      for (const int64_t tokens : {1, 7, 4096, 1 << 20}) {
        EXPECT_EQ(plan_read(tokens, width, dtype, 16, false).threads_per_token,
                  plan_read(1, width, dtype, 16, true).threads_per_token);
      }
    }
  }
}

TEST(CudaPlan, RowAlignmentCountsOnlyStridesInUse) {
  alignas(16) static const char memory[64] = {};
  const auto x = [](int64_t offset, int64_t token_stride, int64_t stream_stride) {
    return StreamsView{memory + offset, token_stride, stream_stride};
  };
  EXPECT_EQ(row_alignment(x(0, 32, 8), 9, 4, DType::kBFloat16), 16);
  EXPECT_EQ(row_alignment(x(0, 32, 7), 9, 4, DType::kBFloat16), 2);
  EXPECT_EQ(row_alignment(x(0, 32, 7), 9, 1, DType::kBFloat16), 16);
  EXPECT_EQ(row_alignment(x(0, 9, 8), 1, 4, DType::kBFloat16), 16);
  EXPECT_EQ(row_alignment(x(0, 9, 8), 2, 4, DType::kFloat32), 4);
  EXPECT_EQ(row_alignment(x(8, 32, 8), 9, 4, DType::kFloat32), 8);
  EXPECT_EQ(row_alignment(RowsView{memory + 2, 8}, 3, DType::kFloat16), 2);
}

}  // namespace
}  // namespace hyperstreams::cuda
