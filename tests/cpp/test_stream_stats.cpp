#include "hyperstreams/stream_stats.h"

#include <gtest/gtest.h>

#include "stream_stats_cases.h"

namespace hyperstreams::testing {
namespace {

using stream_stats_cases::Case;
using stream_stats_cases::expected;
using stream_stats_cases::Problem;

template <class T>
std::vector<double> run(const Problem<T>& p, DType dtype, ParallelFor parallel_for) {
  const Case& c = p.c;
  const int64_t size = stream_stats_size(c.n_streams);
  Guarded<double> stats(size), partials(token_partitions(p.tokens) * size);
  const auto rows = [](bool given, const std::vector<T>& values, int64_t stride) {
    return given ? RowsView{values.data(), stride} : RowsView{nullptr, 0};
  };
  cpu::stream_stats({p.tokens,
                     c.sequence,
                     c.n_streams,
                     c.width,
                     dtype,
                     dtype,
                     {p.x.data(), p.token_stride, p.stream_stride},
                     rows(c.has_y, p.y, c.width + 1),
                     rows(c.has_pre, p.h_pre, p.h_stride),
                     rows(c.has_post, p.h_post, p.h_stride),
                     rows(c.has_mix, p.h_res, p.res_stride),
                     partials.data(),
                     stats.data()},
                    parallel_for);
  EXPECT_TRUE(stats.intact() && partials.intact());
  return stats.copy();
}

template <class T>
void check(const Case& c, DType dtype, ParallelFor parallel_for) {
  const Problem<T> p(c);
  const std::vector<double> actual = run(p, dtype, parallel_for), wanted = expected(p);
  ASSERT_EQ(actual.size(), wanted.size());
  // Angles near 0 and pi magnify rounding to about 1e-8 each.
  for (size_t k = 0; k < wanted.size(); ++k) {
    EXPECT_NEAR(actual[k], wanted[k], 2e-8 * static_cast<double>(p.tokens)) << "value " << k;
  }
}

TEST(StreamStats, EqualsPlainLoopsAtEveryIsaLevel) {
  for (const cpu::IsaLevel level : isa_levels()) {
    const AtIsaLevel at(level);
    for (const int n : {1, 2, 4, 7, 16}) {
      for (const int64_t width : {1, 8, 37}) {
        // 2 x 71 tokens: sequences end within partitions and partitions within sequences.
        for (const auto& [sequences, sequence] :
             {std::pair<int64_t, int64_t>{0, 4}, {1, 1}, {1, 5}, {4, 2}, {2, 71}}) {
          SCOPED_TRACE(::testing::Message() << cpu::isa_name(level) << " n=" << n << " C=" << width
                                            << " T=" << sequences << "x" << sequence);
          check<float>({sequences, sequence, n, width, true, true, true, true, false},
                       DType::kFloat32, threaded);
          check<double>({sequences, sequence, n, width, true, true, true, false, true},
                        DType::kFloat64, serial);
          check<float>({sequences, sequence, n, width, false, false, false, false, false},
                       DType::kFloat32, serial);
        }
      }
    }
  }
}

TEST(StreamStats, SameBitsOnAnyThreadsAndOnAvx2AndAvx512) {
  const Problem<float> p({3, 173, 4, 77, true, true, true, true, false});
  std::vector<std::vector<double>> results;
  for (const cpu::IsaLevel level : isa_levels()) {
    if (level == cpu::IsaLevel::kBase) continue;
    const AtIsaLevel at(level);
    for (const ParallelFor parallel_for : {&serial, &threaded}) {
      results.push_back(run(p, DType::kFloat32, parallel_for));
    }
  }
  for (const auto& result : results) EXPECT_EQ(result, results.front());
}

}  // namespace
}  // namespace hyperstreams::testing
