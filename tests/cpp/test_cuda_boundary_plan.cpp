// Launch plans of boundary over random shapes and devices: every token and channel is covered once,
// within the device's limits, and scratch holds what the kernels write.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <random>

#include "cuda_plan_testing.h"

namespace hyperstreams::cuda::testing {
namespace {

void check_boundary(const BoundaryShape& s, const BoundaryPlan& plan) {
  const int64_t rows = s.tokens * (s.per_stream ? s.n_streams : 1);
  const int64_t features = s.width * (s.per_stream ? 1 : s.n_streams);
  check_limits(plan.write, s.dtype == DType::kBFloat16 ? 384 : 256);
  check_limits(plan.gradients, 512);
  check_limits(plan.gradient_weights);
  check_limits(plan.sums);
  check_limits(plan.phi, 1024);
  const int64_t part_chunks = plan.chunks_per_part;
  EXPECT_EQ(plan.chunks, (s.width + 31) / 32);
  EXPECT_GE(plan.parts * part_chunks, plan.chunks);
  EXPECT_LT((plan.parts - 1) * part_chunks, plan.chunks);
  EXPECT_LE(plan.parts, 6);
  EXPECT_EQ(plan.write.grid_y * plan.parts_per_block, plan.parts);
  EXPECT_TRUE(plan.direct || plan.write.shared_bytes > 0);
  EXPECT_LE(plan.write.shared_bytes, 227 << 10);
  const int64_t per_block = plan.chunks_by_warp ? 16 : plan.write.block_x / 2;
  EXPECT_GE(plan.write.grid_x * per_block, s.tokens);
  EXPECT_LT((plan.write.grid_x - 1) * per_block, s.tokens);
  EXPECT_GE(plan.tiles * 8, s.logits);
  check_limits(plan.dots);
  const int64_t vectors = (s.width * (s.dtype == DType::kFloat32 ? 4 : 2) + 15) / 16;
  EXPECT_EQ(plan.piece_vectors % 32, 0);
  EXPECT_LE(plan.piece_vectors, 128);
  EXPECT_GE(plan.dot_pieces * plan.piece_vectors, vectors);
  EXPECT_LT((plan.dot_pieces - 1) * plan.piece_vectors, vectors);
  EXPECT_EQ(plan.coefficients.partials, s.logits ? s.single.partials : 0);
  EXPECT_GE(plan.slabs * 64, s.width);
  EXPECT_LT((plan.slabs - 1) * 64, s.width);
  EXPECT_EQ(plan.gradients.grid_x, plan.slabs);
  EXPECT_EQ(plan.gradients.grid_y, plan.token_parts);
  EXPECT_EQ(plan.tokens_per_part % (s.dtype == DType::kFloat32 ? 16 : 32), 0);
  EXPECT_EQ(plan.gradients.block_x, s.dtype == DType::kFloat32 ? 256 : 512);
  EXPECT_LE(plan.gradients.shared_bytes, 227 << 10);
  EXPECT_GE(plan.groups * 16, s.tokens);
  EXPECT_GE((plan.gradient_weights.grid_x - plan.weight_blocks) * 256,
            plan.groups * plan.group_vectors);
  EXPECT_GE(plan.token_parts * plan.tokens_per_part, s.tokens);
  EXPECT_LT((plan.token_parts - 1) * plan.tokens_per_part, s.tokens);
  const int64_t phi = plan.token_parts * s.logits * features;
  EXPECT_TRUE(plan.token_parts == 1 || phi * 4 <= (32 << 20));
  EXPECT_GE(plan.sums.grid_x * plan.tokens_per_sum, s.tokens);
  EXPECT_LE(plan.sums.grid_x, 1024);
  EXPECT_GE(plan.phi.grid_x * 32, features);
  // One part of scratch after the other.
  EXPECT_GE(plan.forward.map - plan.forward.sums,
            s.logits ? plan.parts * rows * (s.logits + 1) : 0);
  EXPECT_GE(plan.forward.size - plan.forward.map, plan.coefficients.forward.scratch);
  const BoundaryBackwardScratch& b = plan.backward;
  const int64_t sums = s.n_streams * (s.n_streams + 2);
  EXPECT_GE(b.grad_logits - b.groups, plan.groups * plan.group_vectors * 4);
  EXPECT_GE(b.factors - b.grad_logits, rows * s.logits);
  EXPECT_GE(b.dots - b.factors, s.logits ? rows : 0);
  EXPECT_GE(b.sums - b.dots, s.logits ? plan.dot_pieces * s.tokens * s.n_streams : 0);
  EXPECT_GE(b.phi - b.sums, plan.slabs * s.tokens * sums);
  EXPECT_GE(b.bias - b.phi, phi);
  EXPECT_GE(b.coefficients - b.bias, plan.token_parts * s.width);
  EXPECT_GE(b.tokens - b.coefficients, plan.coefficients.partials * 4 * s.coefficients);
  EXPECT_GE(b.map - b.tokens, plan.sums.grid_x * 2 * sums);
  EXPECT_GE(b.size - b.map, plan.coefficients.backward.scratch);
}

TEST(CudaPlan, BoundaryCoversEverythingOnce) {
  std::mt19937_64 random(10);
  for (int trial = 0; trial < 20000; ++trial) {
    // Up to 2^28 tokens and 2^20 channels.
    const int64_t tokens = 1 + static_cast<int64_t>(random() >> (36 + random() % 28));
    const int64_t width = 1 + static_cast<int64_t>(random() >> (44 + random() % 20));
    const int n = 1 + static_cast<int>(random() % 5);
    CoefficientSettings settings = map_settings(n, MapKind::kSinkhorn, {{20}, {0, 1}});
    settings.per_stream = random() % 3 == 0;
    const int limit = (std::array{99, 163, 227})[random() % 3] << 10;
    const BoundaryShape shape = boundary_shape(tokens, n, width, kDTypes[random() % 3],
                                               random() % 4 == 0 ? nullptr : &settings, limit);
    SCOPED_TRACE(::testing::Message()
                 << "T=" << tokens << " n=" << n << " C=" << width << " K=" << shape.logits);
    const BoundaryPlan plan = plan_boundary(shape, int64_t{2} << random() % 4);
    const BoundaryPlan masked = plan_boundary(shape, 1);
    EXPECT_EQ(plan.fused, masked.fused);
    // One stream fits everywhere, four where there is the most.
    EXPECT_TRUE(plan.fused || limit < kMostSharedBytes || n > 4);
    EXPECT_TRUE(plan.fused || n > 1);
    EXPECT_FALSE(plan.fused && n > 4);
    EXPECT_LE(std::max(plan.write.shared_bytes, plan.gradients.shared_bytes), limit);
    EXPECT_LE(std::max(masked.write.shared_bytes, masked.gradients.shared_bytes), limit);
    EXPECT_EQ(plan.forward.size, masked.forward.size);  // one scratch serves any alignment
    EXPECT_EQ(plan.backward.size, masked.backward.size);
    if (plan.fused) {
      check_boundary(shape, plan);
      EXPECT_EQ(plan.forward.sums, masked.forward.sums);
      EXPECT_EQ(plan.token_parts, masked.token_parts);
    }
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace hyperstreams::cuda::testing
