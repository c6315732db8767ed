// Launch plans over random shapes: every token and channel is covered once, within the grid limits.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "cuda_plan_testing.h"

namespace hyperstreams::cuda::testing {
namespace {

struct Shape {
  int64_t tokens;
  int n_streams;
  int64_t width;
  DType dtype;
  int64_t alignment;
  bool is_static;
};

std::ostream& operator<<(std::ostream& out, const Shape& s) {
  return out << "T=" << s.tokens << " n=" << s.n_streams << " C=" << s.width
             << " dtype=" << static_cast<int>(s.dtype) << " alignment=" << s.alignment
             << " static=" << s.is_static;
}

/// Vectors are 16 bytes, and whole ones only where rows hold whole aligned vectors.
void check_vectors(const Shape& s, int vector, bool whole) {
  EXPECT_EQ(vector * (s.dtype == DType::kFloat32 ? 4 : 2), 16);
  if (whole) {
    EXPECT_EQ(s.alignment, 16);
    EXPECT_EQ(s.width % vector, 0);
  }
}

/// The threads of x cover the channels, and no block of x is beyond them. Tokens are walked in
/// strides of grid_y * block_y, so any positive product covers them once.
void check_vector_threads(const Shape& s, int vector, const LaunchShape& launch) {
  check_limits(launch);
  const int64_t per_block = int64_t{launch.block_x} * vector;
  EXPECT_GE(launch.grid_x * per_block, s.width);
  EXPECT_LT((launch.grid_x - 1) * per_block, s.width);
  EXPECT_LT((launch.grid_y - 1) * launch.block_y, s.tokens);
}

/// Token ranges tile [0, tokens) and none is empty.
void check_owners(const Shape& s, const OwnerPlan& plan, int threads = 256) {
  check_limits(plan.launch);
  const int64_t blocks = plan.launch.grid_x;
  EXPECT_GE(plan.tokens_per_block * blocks, s.tokens);
  EXPECT_LT(plan.tokens_per_block * (blocks - 1), s.tokens);
  EXPECT_EQ(plan.launch.block_x, threads);
  EXPECT_TRUE(plan.threads_per_token == 32 || plan.threads_per_token == threads);
  EXPECT_EQ(plan.partials, s.is_static ? blocks : 0);
  EXPECT_LE(plan.partials, 1024);
}

/// Parts tile [0, tokens) and none is empty; blocks of x cover `rows` rows of channels; the partial
/// rows take at most 32 MiB, or are one.
void check_columns(const Shape& s, int64_t rows, int vector, const ColumnPlan& plan) {
  check_limits(plan.launch);
  EXPECT_EQ(plan.launch.block_x * plan.launch.block_y, 256);
  EXPECT_EQ(plan.launch.grid_y, plan.parts);
  EXPECT_GE(plan.tokens_per_part * plan.parts, s.tokens);
  EXPECT_LT(plan.tokens_per_part * (plan.parts - 1), s.tokens);
  const int64_t per_block = int64_t{plan.launch.block_x} * vector;
  EXPECT_EQ(plan.launch.grid_x, rows * plan.blocks_per_row);
  EXPECT_GE(plan.blocks_per_row * per_block, s.width);
  EXPECT_LT((plan.blocks_per_row - 1) * per_block, s.width);
  EXPECT_TRUE(plan.parts == 1 || plan.parts * rows * s.width * 4 <= (32 << 20));
}

// The split must not depend on how the memory is aligned.
void expect_same_split(const OwnerPlan& a, const OwnerPlan& b) {
  EXPECT_EQ(a.tokens_per_block, b.tokens_per_block);
  EXPECT_EQ(a.threads_per_token, b.threads_per_token);
  EXPECT_EQ(a.partials, b.partials);
}

void check_read(const Shape& s) {
  const ReadPlan plan = plan_read(s.tokens, s.width, s.dtype, s.alignment, s.is_static);
  check_vectors(s, plan.vector, plan.whole_vectors);
  check_vector_threads(s, plan.vector, plan.forward);
  check_owners(s, plan.backward);
  expect_same_split(plan.backward, plan_read(s.tokens, s.width, s.dtype, 2, s.is_static).backward);
}

void check_mix_write(const Shape& s) {
  const MixWritePlan plan = plan_mix_write(s.tokens, s.width, s.dtype, s.alignment, s.is_static);
  check_vectors(s, plan.vector, plan.whole_vectors);
  check_vector_threads(s, plan.vector, plan.forward);
  check_owners(s, plan.backward);
  EXPECT_EQ(plan.backward.threads_per_token, 32);
  check_columns(s, 1, plan.vector, plan.bias);
  const MixWritePlan other = plan_mix_write(s.tokens, s.width, s.dtype, 2, s.is_static);
  expect_same_split(plan.backward, other.backward);
  EXPECT_EQ(plan.bias.parts, other.bias.parts);
}

void check_expand(const Shape& s) {
  const ExpandPlan plan = plan_expand(s.tokens, s.n_streams, s.width, s.dtype, s.alignment);
  check_vectors(s, plan.vector, plan.whole_vectors);
  check_vector_threads(s, plan.vector, plan.tokens);
  check_columns(s, s.n_streams, plan.vector, plan.sums);
  EXPECT_EQ(plan.sums.parts, plan_expand(s.tokens, s.n_streams, s.width, s.dtype, 2).sums.parts);
}

void check_stream_stats(const Shape& s) {
  const StreamStatsPlan plan = plan_stream_stats(s.tokens, s.width, s.dtype, s.alignment);
  check_vectors(s, plan.vector, plan.whole_vectors);
  check_owners({s.tokens, s.n_streams, s.width, s.dtype, s.alignment, true}, plan.owners, 128);
  EXPECT_EQ(plan.owners.threads_per_token, 32);
  expect_same_split(plan.owners, plan_stream_stats(s.tokens, s.width, s.dtype, 2).owners);
}

TEST(CudaPlan, CoversEverythingOnceForRandomShapes) {
  std::mt19937_64 random(7);
  for (int trial = 0; trial < 20000; ++trial) {
    // Sizes of every magnitude up to 2^36 tokens and 2^30 channels.
    const int64_t tokens = 1 + static_cast<int64_t>(random() >> (28 + random() % 36));
    const int64_t width = 1 + static_cast<int64_t>(random() >> (34 + random() % 30));
    const int n_streams = 1 + static_cast<int>(random() % kMaxStreams);
    const Shape shape{
        tokens,           n_streams, width, kDTypes[random() % 3], int64_t{2} << random() % 4,
        random() % 2 == 0};
    SCOPED_TRACE(::testing::Message() << shape);
    check_read(shape);
    check_mix_write(shape);
    check_expand(shape);
    check_stream_stats(shape);
    if (HasFailure()) return;
  }
}

void check_pass(int64_t tokens, int n, const MapSpace& space, const CoefficientsPass& pass) {
  check_limits(pass.launch);
  EXPECT_EQ(pass.launch.block_x * pass.launch.block_y, n <= 4 ? 256 : 32);
  EXPECT_LT((pass.launch.grid_x - 1) * 32, tokens);
  // Every number has one place.
  const int64_t threads = pass.launch.grid_x * 32;
  EXPECT_EQ(pass.arrays, space.arrays);
  EXPECT_EQ(pass.kept, space.kept);
  EXPECT_EQ(pass.launch.shared_bytes / 128 * threads + pass.scratch,
            (int64_t{space.arrays} + space.kept) * threads);
  EXPECT_TRUE(!pass.keeps_in_shared || pass.scratch == 0);
  EXPECT_LE(pass.launch.shared_bytes, 88 << 10);
  EXPECT_TRUE(pass.launch.grid_x == 1 || pass.scratch * 4 <= (64 << 20));
}

// Blocks walk in strides of the grid, so any positive grid covers the tokens; none is beyond them.
TEST(CudaPlan, CoefficientsFitTheirMemory) {
  std::mt19937_64 random(8);
  for (int trial = 0; trial < 20000; ++trial) {
    const int64_t tokens = 1 + static_cast<int64_t>(random() >> (28 + random() % 36));
    const int n = 1 + static_cast<int>(random() % kMaxStreams);
    const int rounds = 1 + static_cast<int>(random() % 1000000 >> random() % 20);
    const MapKind kind = random() % 3 == 0 ? MapKind::kCirculant : MapKind::kSinkhorn;
    const CoefficientSettings s = map_settings(n, kind, {{rounds}, {0, 1}});
    SCOPED_TRACE(::testing::Message() << "T=" << tokens << " n=" << n << " rounds=" << rounds);
    const CoefficientsPlan plan = plan_coefficients(tokens, s);
    check_pass(tokens, n, mix_forward_space(kind, s.map_settings, n), plan.forward);
    MapSpace backward = mix_backward_space(kind, s.map_settings, n);
    if (n > 4) backward.arrays += n;
    check_pass(tokens, n, backward, plan.backward);
    EXPECT_LE(plan.backward.launch.grid_x, plan.forward.launch.grid_x);
    EXPECT_EQ(plan.partials, plan.backward.launch.grid_x);
    EXPECT_LE(plan.partials, 1024);
    if (HasFailure()) return;
  }
}

TEST(CudaPlan, CoefficientsTakeNoScratchTheyDoNotUse) {
  const MapSettings sinkhorn = {{20}, {0, 1}}, one_factor = {{0, 4}, {}};
  for (int n = 1; n <= kMaxStreams; ++n) {
    EXPECT_EQ(plan_coefficients(999, map_settings(n, MapKind::kSinkhorn, sinkhorn)).forward.scratch,
              0);
    const CoefficientsPlan free = plan_coefficients(999, map_settings(n, MapKind::kFree));
    EXPECT_EQ(free.forward.scratch + free.backward.scratch + free.forward.launch.shared_bytes, 0);
  }
  const CoefficientsPlan four =
      plan_coefficients(999, map_settings(4, MapKind::kSinkhorn, sinkhorn));
  EXPECT_EQ(four.forward.launch.shared_bytes, 0);
  EXPECT_EQ(four.backward.launch.shared_bytes, (4 + 2 * 4 * 20) * 128);
  const CoefficientsPlan kron =
      plan_coefficients(999, map_settings(4, MapKind::kKronecker, one_factor));
  EXPECT_EQ(kron.forward.launch.shared_bytes + kron.backward.launch.shared_bytes, 0);
  EXPECT_EQ(kron.forward.scratch + kron.backward.scratch, 0);
  // More rounds than shared memory holds.
  const MapSettings long_run = {{200}, {0, 1}};
  const CoefficientsPlan many =
      plan_coefficients(999, map_settings(4, MapKind::kSinkhorn, long_run));
  EXPECT_EQ(many.backward.scratch, many.backward.launch.grid_x * 32 * (4 + 2 * 4 * 200));
}

/// Blocks cover tokens, logits and pieces once, and the pieces all channels, whatever the split.
void check_project(const ProjectShape& shape, const ProjectPlan& plan) {
  const bool direct = plan.split == ProjectSplit::kDirect;
  for (const LaunchShape& launch : {plan.weights, plan.forward, plan.finish}) {
    EXPECT_GE(launch.grid_x, 1);
    EXPECT_LE(launch.grid_y, kMaxGridY);
  }
  EXPECT_EQ(plan.forward.block_x, direct ? 256 : 128);
  EXPECT_EQ(plan.chunks, shape.n_streams * ((shape.width + 31) / 32));
  EXPECT_GE(plan.pieces * 8, plan.chunks);
  EXPECT_LT((plan.pieces - 1) * 8, plan.chunks);
  EXPECT_GE(plan.parts * plan.pieces_per_part, plan.pieces);
  EXPECT_LT((plan.parts - 1) * plan.pieces_per_part, plan.pieces);
  // Parts end where segments do, or are pieces; no part is many segments but the one of all.
  EXPECT_TRUE(plan.pieces_per_part == 1 || plan.pieces_per_part == plan.pieces_per_segment ||
              plan.parts == 1);
  EXPECT_LE((plan.pieces - 1) / plan.pieces_per_segment, 3);
  EXPECT_EQ(plan.forward.grid_y, plan.parts);
  EXPECT_GE(plan.slabs * plan.tiles * 8, shape.n_logits);
  EXPECT_LT((plan.slabs - 1) * plan.tiles * 8, shape.n_logits);
  const int64_t per_block = direct ? 16 : shape.dtype == DType::kBFloat16 ? 128 : 64;
  const int64_t token_blocks = plan.forward.grid_x / plan.slabs;
  EXPECT_EQ(token_blocks * plan.slabs, plan.forward.grid_x);
  EXPECT_GE(token_blocks * per_block, shape.tokens);
  EXPECT_LT((token_blocks - 1) * per_block, shape.tokens);
  const int64_t fragments = plan.pieces * 8 * plan.slabs * plan.tiles;
  EXPECT_GE(plan.weights.grid_x * 4, fragments);
  EXPECT_GE(plan.weight_floats, direct ? 0 : fragments * 3 * 32 * 4);
  EXPECT_EQ(plan.weight_floats % 4, 0);
  const int64_t sums = shape.tokens * (shape.n_logits + 1);
  EXPECT_GE(plan.finish.grid_x * 8, shape.tokens);
  EXPECT_EQ(plan.finish.block_x, 256);
  EXPECT_LE(plan.forward.shared_bytes, 113 << 10);  // two blocks to a multiprocessor
  EXPECT_EQ(plan.workspace, plan.weight_floats + plan.parts * sums);
}

/// Columns cover the channels and parts the tokens, once; the partial rows take at most 32 MiB, or
/// are one.
void check_project_backward(const ProjectShape& shape, const ProjectBackwardPlan& plan) {
  check_limits(plan.walk);
  check_limits(plan.finish, 1024);
  const int64_t per_stream = plan.columns / shape.n_streams;
  EXPECT_EQ(per_stream * shape.n_streams, plan.columns);
  EXPECT_GE(per_stream * plan.channels, shape.width);
  EXPECT_LT((per_stream - 1) * plan.channels, shape.width);
  EXPECT_EQ(plan.channels * (shape.dtype == DType::kFloat32 ? 4 : 2), 128);
  EXPECT_GE(plan.walk.grid_x * 4, plan.columns);
  EXPECT_LT((plan.walk.grid_x - 1) * 4, plan.columns);
  EXPECT_EQ(plan.tokens_per_part % 16, 0);
  EXPECT_GE(plan.parts * plan.tokens_per_part, shape.tokens);
  EXPECT_LT((plan.parts - 1) * plan.tokens_per_part, shape.tokens);
  EXPECT_EQ(plan.walk.grid_y, plan.parts * plan.slabs);
  EXPECT_GE(plan.slabs * plan.tiles * 8, shape.n_logits);
  EXPECT_TRUE(plan.together ? plan.slabs == 1 : plan.tiles == 4);
  EXPECT_GE(plan.finish.grid_x * 32, shape.n_streams * shape.width);
  EXPECT_EQ(plan.workspace, plan.parts * shape.n_logits * plan.columns * plan.channels);
  EXPECT_TRUE(plan.parts == 1 || plan.workspace * 4 <= (32 << 20));
  if (!plan.together) {
    EXPECT_GE(plan.grad_x.grid_x, 1);
    EXPECT_GE(plan.grad_x.grid_x / plan.walk.grid_x * 32, shape.tokens);
  }
}

TEST(CudaPlan, ProjectCoversEverythingOnce) {
  std::mt19937_64 random(9);
  for (int trial = 0; trial < 20000; ++trial) {
    // Up to 2^28 tokens, 2^24 channels and all logits.
    const ProjectShape shape{1 + static_cast<int64_t>(random() >> (36 + random() % 28)),
                             1 + static_cast<int>(random() % kMaxStreams),
                             1 + static_cast<int64_t>(random() >> (40 + random() % 24)),
                             1 + static_cast<int64_t>(random() % 288), kDTypes[random() % 3]};
    const int64_t alignment = int64_t{2} << random() % 4;
    SCOPED_TRACE(::testing::Message()
                 << "T=" << shape.tokens << " n=" << shape.n_streams << " C=" << shape.width
                 << " K=" << shape.n_logits << " dtype=" << static_cast<int>(shape.dtype));
    const ProjectPlan plan = plan_project(shape, alignment);
    check_project(shape, plan);
    const ProjectPlan masked = plan_project(shape, 1);
    EXPECT_EQ(plan.workspace, masked.workspace);  // one scratch serves any alignment
    EXPECT_EQ(plan.parts, masked.parts);
    EXPECT_EQ(
        plan.pieces_per_segment,
        plan_project({1, shape.n_streams, shape.width, 1, shape.dtype}, 1).pieces_per_segment);
    const ProjectBackwardPlan backward = plan_project_backward(shape, alignment);
    check_project_backward(shape, backward);
    const ProjectBackwardPlan other = plan_project_backward(shape, 1);
    EXPECT_EQ(backward.workspace, other.workspace);
    EXPECT_EQ(backward.parts, other.parts);
    if (HasFailure()) return;
  }
}

// From few tokens to many, and phi of more pieces than a grid has rows.
TEST(CudaPlan, ProjectSplitsByTokens) {
  const auto split = [](int64_t tokens, int64_t width) {
    return plan_project({tokens, 4, width, 24, DType::kBFloat16}, 16).split;
  };
  EXPECT_EQ(split(1, 768), ProjectSplit::kDirect);
  EXPECT_EQ(split(512, 768), ProjectSplit::kDirect);
  EXPECT_EQ(split(513, 768), ProjectSplit::kPieces);
  EXPECT_EQ(split(2049, 768), ProjectSplit::kSegments);
  EXPECT_EQ(split(65537, 768), ProjectSplit::kWhole);
  EXPECT_EQ(split(1, int64_t{1} << 24), ProjectSplit::kSegments);
}

/// Blocks cover tokens and channels once; scratch holds everything, whatever the alignment.
TEST(CudaPlan, NoTokensNeedNoPartials) {
  EXPECT_EQ(plan_read(0, 64, DType::kFloat32, 16, true).backward.partials, 0);
  const MixWritePlan plan = plan_mix_write(0, 64, DType::kFloat32, 16, true);
  EXPECT_EQ(plan.backward.partials, 0);
  EXPECT_EQ(plan.bias.parts, 0);
  EXPECT_EQ(plan_expand(0, 4, 64, DType::kFloat32, 16).sums.parts, 0);
  EXPECT_EQ(plan_coefficients(0, map_settings(4, MapKind::kFree)).partials, 0);
  EXPECT_EQ(plan_stream_stats(0, 64, DType::kFloat32, 16).owners.partials, 0);
  EXPECT_EQ(plan_project_backward({0, 4, 64, 24, DType::kFloat32}, 16).workspace, 0);
}

TEST(CudaPlan, PerTokenOrderDependsOnWidthAndDtypeAlone) {
  for (const DType dtype : kDTypes) {
    for (const int64_t width : {1, 512, 513, 1024, 1025, 4096}) {
      for (const int64_t tokens : {1, 7, 4096, 1 << 20}) {
        EXPECT_EQ(plan_read(tokens, width, dtype, 16, false).backward.threads_per_token,
                  plan_read(1, width, dtype, 16, true).backward.threads_per_token);
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
}  // namespace hyperstreams::cuda::testing
