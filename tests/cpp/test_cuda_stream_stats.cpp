// The kernels of csrc/kernels/cuda/stream_stats.cu, emulated, against plain loops.
#include <gtest/gtest.h>

#include "cuda_testing.h"
#include "hyperstreams/plan.h"
#include "stream_stats_cases.h"

namespace hyperstreams::cuda::testing {
namespace {

using hyperstreams::testing::stream_stats_cases::Case;
using hyperstreams::testing::stream_stats_cases::expected;
using Values = hyperstreams::testing::stream_stats_cases::Problem<float>;

struct Sums {
  std::vector<double> values;
};

bool same_bits(const Sums& a, const Sums& b) { return same_bytes(a.values, b.values); }

template <class S>
std::vector<float> rounded(const std::vector<float>& values) {
  std::vector<float> out;
  for (const float value : values) out.push_back(to_float(from_float<S>(value)));
  return out;
}

/// Streams stored as S and a branch output stored as Y.
template <class S, class Y>
struct Problem {
  Values values;
  std::vector<S> x;
  std::vector<Y> y;

  explicit Problem(const Case& c) : values(c) {
    values.x = rounded<S>(values.x);
    values.y = rounded<Y>(values.y);
    x = stored<S>(values.x);
    y = stored<Y>(values.y);
  }

  Sums run() const {
    const StreamsView streams{x.data(), values.token_stride, values.stream_stride};
    return run_on(streams, {y.data(), values.c.width + 1});
  }

  Sums run_on(StreamsView streams, RowsView branch) const {
    const Case& c = values.c;
    const int64_t size = stream_stats_size(c.n_streams);
    const int64_t parts = plan_stream_stats(values.tokens, c.width, kDType<S>, 2).owners.partials;
    Guarded<double> stats(size), partials(parts * size);
    const auto rows = [](bool given, const std::vector<float>& from, int64_t stride) {
      return given ? RowsView{from.data(), stride} : RowsView{nullptr, 0};
    };
    EXPECT_EQ(stream_stats(
                  {values.tokens, c.sequence, c.n_streams, c.width, kDType<S>, kDType<Y>, streams,
                   c.has_y ? branch : RowsView{nullptr, 0},
                   rows(c.has_pre, values.h_pre, values.h_stride),
                   rows(c.has_post, values.h_post, values.h_stride),
                   rows(c.has_mix, values.h_res, values.res_stride), partials.data(), stats.data()},
                  nullptr),
              Status::kOk);
    EXPECT_TRUE(stats.intact() && partials.intact());
    return {stats.copy()};
  }

  /// Contiguous rows, `offset` elements off a 16-byte boundary.
  Sums run_contiguous(int64_t offset) const {
    const Case& c = values.c;
    const int64_t n = c.n_streams;
    std::vector<S> x_rows(offset + values.tokens * n * c.width);
    std::vector<Y> y_rows(offset + values.tokens * c.width);
    for (int64_t t = 0; t < values.tokens; ++t) {
      for (int64_t i = 0; i < n; ++i) {
        std::memcpy(&x_rows[offset + (t * n + i) * c.width],
                    &x[t * values.token_stride + i * values.stream_stride], c.width * sizeof(S));
      }
      std::memcpy(&y_rows[offset + t * c.width], &y[t * (c.width + 1)], c.width * sizeof(Y));
    }
    return run_on({x_rows.data() + offset, n * c.width, c.width},
                  {y_rows.data() + offset, c.width});
  }
};

template <class S, class Y>
void check_values(const Problem<S, Y>& problem, const Sums& actual) {
  const std::vector<double> wanted = expected(problem.values);
  ASSERT_EQ(actual.values.size(), wanted.size());
  // Angles near 0 and pi magnify rounding to about 1e-8 each.
  for (size_t k = 0; k < wanted.size(); ++k) {
    EXPECT_NEAR(actual.values[k], wanted[k], 2e-8 * static_cast<double>(problem.values.tokens))
        << "value " << k;
  }
}

template <class S, class Y = S>
void check_case(const Case& c) {
  SCOPED_TRACE(::testing::Message() << c << " element bytes=" << sizeof(S) << ", " << sizeof(Y));
  const Problem<S, Y> problem(c);
  check_values(problem, run_in_both_orders([&] { return problem.run(); }));
}

// One to four tiles of rows, the last full or not; widths below, at and around one vector and one
// warp of them.
TEST(CudaStreamStats, EqualsPlainLoops) {
  for (const int n : {1, 2, 3, 4, 5, 9, 10, 14, 16}) {
    check_case<float>({1, 3, n, 9, true, true, true, true, n % 2 == 0});
    if (n > 5) continue;
    check_case<BFloat16>({1, 2, n, 24, true, true, true, false, n % 2 == 1});
    check_case<Float16, float>({2, 1, n, 37, n % 2 == 0, true, false, true, false});
    check_case<float, BFloat16>({1, 1, n, 264, true, false, true, false, false});
  }
}

TEST(CudaStreamStats, WhatIsAbsentCountsAsTheContractSays) {
  for (int present = 0; present < 16; ++present) {
    const auto has = [&](int bit) { return (present >> bit & 1) != 0; };
    check_case<float>({1, 2, 3, 12, has(0), has(1), has(2), has(3), false});
  }
  check_case<BFloat16>({0, 4, 4, 8, true, true, true, true, false});
}

// One token more than a block takes at once; sequences that end within blocks; more tokens than
// there may be blocks.
TEST(CudaStreamStats, SumsOverEverySplit) {
  check_case<float>({3, 3, 4, 8, true, true, true, true, false});
  check_case<float>({2, 19, 2, 5, true, true, true, true, true});
  // A warp takes two neighbours, of one sequence or of two; the last may have none.
  check_case<BFloat16>({3, 5, 4, 132, true, true, true, true, false});
  check_case<Float16, float>({5, 3, 4, 21, true, true, true, true, true});
  check_case<BFloat16>({9, 1, 4, 8, true, true, true, true, false});
  ASSERT_EQ(plan_stream_stats(8193, 3, DType::kBFloat16, 16).owners.tokens_per_block, 9);
  const Problem<BFloat16, BFloat16> many({3, 2731, 1, 3, false, true, false, false, false});
  check_values(many, many.run());
}

TEST(CudaStreamStats, SameBitsAtAnyAlignmentAndStride) {
  for (const int64_t width : {24, 1032}) {
    const Problem<BFloat16, float> problem({2, 6, 4, width, true, true, true, true, false});
    const Sums strided = problem.run();
    for (const int64_t offset : {0, 1, 4, 8}) {
      EXPECT_TRUE(same_bits(problem.run_contiguous(offset), strided)) << offset;
    }
  }
}

// An infinite channel, whose angles do not count, leaves everything else as on the CPU.
TEST(CudaStreamStats, AgreesWithTheCpuKernelBesideAnInfiniteChannel) {
  Problem<float, float> problem({1, 7, 3, 10, true, true, true, true, false});
  problem.x[4 * problem.values.token_stride] = INFINITY;
  const std::vector<double> actual = problem.run().values;
  const Values& v = problem.values;
  const int64_t size = stream_stats_size(3);
  std::vector<double> stats(size), partials(token_partitions(7) * size);
  cpu::stream_stats({7,
                     7,
                     3,
                     10,
                     DType::kFloat32,
                     DType::kFloat32,
                     {problem.x.data(), v.token_stride, v.stream_stride},
                     {problem.y.data(), 11},
                     {v.h_pre.data(), v.h_stride},
                     {v.h_post.data(), v.h_stride},
                     {v.h_res.data(), v.res_stride},
                     partials.data(),
                     stats.data()},
                    hyperstreams::testing::serial);
  for (int64_t k = 0; k < size; ++k) {
    if (std::isfinite(stats[k])) {
      EXPECT_NEAR(actual[k], stats[k], 1e-7) << k;
    } else {
      EXPECT_EQ(std::isnan(actual[k]), std::isnan(stats[k])) << k;
      EXPECT_TRUE(std::isnan(stats[k]) || actual[k] == stats[k]) << k;
    }
  }
}

TEST(CudaStreamStats, RefusesDouble) {
  StreamStatsArgs args = {};
  args.dtype = DType::kFloat64;
  EXPECT_EQ(stream_stats(args, nullptr), Status::kUnsupportedDType);
  args.dtype = DType::kFloat32;
  args.y_dtype = DType::kFloat64;
  EXPECT_EQ(stream_stats(args, nullptr), Status::kUnsupportedDType);
}

}  // namespace
}  // namespace hyperstreams::cuda::testing
