#include <gtest/gtest.h>

#include "hyperstreams/read.h"
#include "kernel_testing.h"

namespace hyperstreams::testing {
namespace {

struct Case {
  int64_t tokens;
  int n_streams;
  int64_t width;
  bool is_static;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const int n : {1, 2, 3, 4, 5, 8, 16}) {
    for (const int64_t width : {1, 15, 16, 37}) {
      for (const int64_t tokens : {0, 1, 131}) {
        all.push_back({tokens, n, width, false});
        all.push_back({tokens, n, width, true});
      }
    }
  }
  return all;
}

// Streams sit inside a wider buffer, so that strides differ from the contiguous ones.
template <class T>
struct Problem {
  Case c;
  int64_t stream_stride, token_stride, h_stride;
  std::vector<T> x, h, grad_u;

  explicit Problem(const Case& shape)
      : c(shape),
        stream_stride(c.width + 3),
        token_stride(c.n_streams * stream_stride + 5),
        h_stride(c.is_static ? 0 : c.n_streams + 2),
        x(random_values<T>(c.tokens * token_stride + 1, 1)),
        h(random_values<T>((c.is_static ? 1 : c.tokens) * (c.n_streams + 2) + 1, 2)),
        grad_u(random_values<T>(c.tokens * c.width + 1, 3)) {}

  double x_at(int64_t t, int i, int64_t ch) const {
    return x[t * token_stride + i * stream_stride + ch];
  }
  double h_at(int64_t t, int i) const { return h[t * h_stride + i]; }
  int64_t h_size() const { return (c.is_static ? 1 : c.tokens) * c.n_streams; }
};

template <class T>
void check(const Case& shape, DType dtype, double tolerance, ParallelFor parallel_for) {
  Problem<T> p(shape);
  const auto [tokens, n, width, is_static] = shape;
  Guarded<T> u(tokens * width), grad_x(tokens * n * width), grad_h(p.h_size());
  Guarded<double> partials(token_partitions(tokens) * n);
  const StreamsView x{p.x.data(), p.token_stride, p.stream_stride};
  const RowsView h{p.h.data(), p.h_stride};
  cpu::read_forward({tokens, n, width, dtype, x, h, u.data()}, parallel_for);
  cpu::read_backward({tokens,
                      n,
                      width,
                      dtype,
                      x,
                      h,
                      {p.grad_u.data(), width},
                      grad_x.data(),
                      grad_h.data(),
                      partials.data()},
                     parallel_for);
  std::vector<double> expected_h(static_cast<size_t>(p.h_size()), 0.0);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t ch = 0; ch < width; ++ch) {
      double sum = 0;
      const double g = p.grad_u[t * width + ch];
      for (int i = 0; i < n; ++i) {
        sum += p.h_at(t, i) * p.x_at(t, i, ch);
        expected_h[(is_static ? 0 : t * n) + i] += g * p.x_at(t, i, ch);
        EXPECT_NEAR(grad_x[(t * n + i) * width + ch], p.h_at(t, i) * g, tolerance);
      }
      EXPECT_NEAR(u[t * width + ch], sum, tolerance);
    }
  }
  for (int64_t k = 0; k < p.h_size(); ++k) EXPECT_NEAR(grad_h[k], expected_h[k], tolerance * 20);
  EXPECT_TRUE(u.intact() && grad_x.intact() && grad_h.intact() && partials.intact());
}

TEST(Read, EqualsPlainLoopsAtEveryIsaLevel) {
  for (const cpu::IsaLevel level : isa_levels()) {
    const AtIsaLevel at(level);
    for (const Case& shape : cases()) {
      SCOPED_TRACE(::testing::Message()
                   << cpu::isa_name(level) << " T=" << shape.tokens << " n=" << shape.n_streams
                   << " C=" << shape.width << " static=" << shape.is_static);
      check<float>(shape, DType::kFloat32, 2e-5, serial);
      check<double>(shape, DType::kFloat64, 1e-12, threaded);
    }
  }
}

TEST(Read, SameBitsOnAnyThreadsAndOnAvx2AndAvx512) {
  for (const bool is_static : {false, true}) {
    const Case shape{517, 4, 77, is_static};
    Problem<float> p(shape);
    std::vector<std::vector<float>> results;
    for (const cpu::IsaLevel level : isa_levels()) {
      if (level == cpu::IsaLevel::kBase) continue;
      const AtIsaLevel at(level);
      for (const ParallelFor parallel_for : {&serial, &threaded}) {
        Guarded<float> u(517 * 77), grad_x(517 * 4 * 77), grad_h(p.h_size());
        Guarded<double> partials(token_partitions(517) * 4);
        const StreamsView x{p.x.data(), p.token_stride, p.stream_stride};
        const RowsView h{p.h.data(), p.h_stride};
        cpu::read_forward({517, 4, 77, DType::kFloat32, x, h, u.data()}, parallel_for);
        cpu::read_backward({517,
                            4,
                            77,
                            DType::kFloat32,
                            x,
                            h,
                            {p.grad_u.data(), 77},
                            grad_x.data(),
                            grad_h.data(),
                            partials.data()},
                           parallel_for);
        std::vector<float> all = u.copy();
        for (const float v : grad_x.copy()) all.push_back(v);
        for (const float v : grad_h.copy()) all.push_back(v);
        results.push_back(all);
      }
    }
    for (const auto& result : results) EXPECT_EQ(result, results.front());
  }
}

}  // namespace
}  // namespace hyperstreams::testing
