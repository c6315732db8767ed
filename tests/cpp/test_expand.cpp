#include "hyperstreams/expand.h"

#include <gtest/gtest.h>

#include "kernel_testing.h"

namespace hyperstreams::testing {
namespace {

struct Case {
  int64_t tokens;
  int n_streams;
  int64_t width;
  bool has_scale;
  bool has_bias;
};

// Rows and streams sit inside wider buffers, so that strides differ from the contiguous ones.
template <class T>
struct Problem {
  Case c;
  int64_t h_stride, stream_stride, token_stride, size;
  std::vector<T> h, grad_x, scale, bias;

  explicit Problem(const Case& shape)
      : c(shape),
        h_stride(c.width + 2),
        stream_stride(c.width + 3),
        token_stride(c.n_streams * stream_stride + 5),
        size(c.n_streams * c.width),
        h(random_values<T>(c.tokens * h_stride + 1, 1)),
        grad_x(random_values<T>(c.tokens * token_stride + 1, 2)),
        scale(random_values<T>(size, 3)),
        bias(random_values<T>(size, 4)) {}
};

template <class T>
struct Result {
  Guarded<T> x, grad_h, grad_scale, grad_bias, partials;

  explicit Result(const Case& c)
      : x(c.tokens * c.n_streams * c.width),
        grad_h(c.tokens * c.width),
        grad_scale(c.has_scale ? c.n_streams * c.width : 0),
        grad_bias(c.has_bias ? c.n_streams * c.width : 0),
        partials(2 * row_partitions(c.tokens, c.n_streams * c.width) * c.n_streams * c.width) {}

  bool intact() const {
    return x.intact() && grad_h.intact() && grad_scale.intact() && grad_bias.intact() &&
           partials.intact();
  }

  std::vector<T> all() {
    std::vector<T> values;
    for (Guarded<T>* part : {&x, &grad_h, &grad_scale, &grad_bias}) {
      for (int64_t k = 0; k < part->size(); ++k) values.push_back((*part)[k]);
    }
    return values;
  }
};

template <class T>
void run(const Problem<T>& p, DType dtype, ParallelFor parallel_for, Result<T>* r) {
  const Case& c = p.c;
  const void* scale = c.has_scale ? p.scale.data() : nullptr;
  const void* bias = c.has_bias ? p.bias.data() : nullptr;
  const RowsView h{p.h.data(), p.h_stride};
  cpu::expand_forward({c.tokens, c.n_streams, c.width, dtype, h, scale, bias, r->x.data()},
                      parallel_for);
  cpu::expand_backward({c.tokens,
                        c.n_streams,
                        c.width,
                        dtype,
                        {p.grad_x.data(), p.token_stride, p.stream_stride},
                        h,
                        scale,
                        r->grad_h.data(),
                        c.has_scale ? r->grad_scale.data() : nullptr,
                        c.has_bias ? r->grad_bias.data() : nullptr,
                        r->partials.data()},
                       parallel_for);
}

template <class T>
void check(const Case& c, DType dtype, double tolerance, ParallelFor parallel_for) {
  const Problem<T> p(c);
  Result<T> r(c);
  run(p, dtype, parallel_for, &r);
  std::vector<double> grad_scale(static_cast<size_t>(p.size), 0.0), grad_bias(grad_scale);
  for (int64_t t = 0; t < c.tokens; ++t) {
    for (int64_t ch = 0; ch < c.width; ++ch) {
      const double h = p.h[t * p.h_stride + ch];
      double grad_h = 0;
      for (int i = 0; i < c.n_streams; ++i) {
        const int64_t k = i * c.width + ch;
        const double g = p.grad_x[t * p.token_stride + i * p.stream_stride + ch];
        const double scale = c.has_scale ? static_cast<double>(p.scale[k]) : 1.0;
        const double bias = c.has_bias ? static_cast<double>(p.bias[k]) : 0.0;
        EXPECT_NEAR(r.x[t * p.size + k], h * scale + bias, tolerance);
        grad_h += scale * g;
        grad_scale[k] += h * g;
        grad_bias[k] += g;
      }
      EXPECT_NEAR(r.grad_h[t * c.width + ch], grad_h, tolerance);
    }
  }
  for (int64_t k = 0; k < r.grad_scale.size(); ++k) {
    EXPECT_NEAR(r.grad_scale[k], grad_scale[k], 20 * tolerance);
  }
  for (int64_t k = 0; k < r.grad_bias.size(); ++k) {
    EXPECT_NEAR(r.grad_bias[k], grad_bias[k], 20 * tolerance);
  }
  EXPECT_TRUE(r.intact());
}

TEST(Expand, EqualsPlainLoopsAtEveryIsaLevel) {
  for (const cpu::IsaLevel level : isa_levels()) {
    const AtIsaLevel at(level);
    for (const int n : {1, 2, 4, 7, 16}) {
      for (const int64_t width : {1, 16, 37}) {
        for (const int64_t tokens : {0, 1, 131}) {
          for (int kind = 0; kind < 4; ++kind) {
            const Case c{tokens, n, width, (kind & 1) != 0, (kind & 2) != 0};
            SCOPED_TRACE(::testing::Message() << cpu::isa_name(level) << " T=" << tokens
                                              << " n=" << n << " C=" << width << " kind=" << kind);
            check<float>(c, DType::kFloat32, 5e-6, serial);
            check<double>(c, DType::kFloat64, 1e-13, threaded);
          }
        }
      }
    }
  }
}

TEST(Expand, SameBitsOnAnyThreadsAndOnAvx2AndAvx512) {
  const Case c{517, 4, 77, true, true};
  const Problem<float> p(c);
  std::vector<std::vector<float>> results;
  for (const cpu::IsaLevel level : isa_levels()) {
    if (level == cpu::IsaLevel::kBase) continue;
    const AtIsaLevel at(level);
    for (const ParallelFor parallel_for : {&serial, &threaded}) {
      Result<float> r(c);
      run(p, DType::kFloat32, parallel_for, &r);
      results.push_back(r.all());
    }
  }
  for (const auto& result : results) EXPECT_EQ(result, results.front());
}

}  // namespace
}  // namespace hyperstreams::testing
