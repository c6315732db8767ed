#include "hyperstreams/mix_write.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernel_testing.h"

namespace hyperstreams::testing {
namespace {

struct Case {
  int64_t tokens;
  int n_streams;
  int64_t width;
  bool has_mix;
  bool static_mix;
  bool static_write;
  bool has_bias;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << "T=" << c.tokens << " n=" << c.n_streams << " C=" << c.width << " mix=" << c.has_mix
             << " static=" << c.static_mix << c.static_write << " bias=" << c.has_bias;
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const int n : {1, 2, 3, 4, 5, 8, 16}) {
    for (const int64_t width : {1, 16, 37}) {
      for (const int64_t tokens : {0, 1, 67}) {
        all.push_back({tokens, n, width, true, false, false, false});
        all.push_back({tokens, n, width, true, true, false, true});
        all.push_back({tokens, n, width, true, false, true, false});
        all.push_back({tokens, n, width, false, false, false, true});
        all.push_back({tokens, n, width, false, false, true, false});
      }
    }
  }
  return all;
}

// Inputs sit inside wider buffers, so that strides differ from the contiguous ones. h_res is
// neither symmetric nor stochastic.
template <class T>
struct Problem {
  Case c;
  int64_t stream_stride, token_stride, y_stride, res_stride, post_stride;
  std::vector<T> x, grad_out, y, h_res, h_post, bias;

  explicit Problem(const Case& shape)
      : c(shape),
        stream_stride(c.width + 3),
        token_stride(c.n_streams * stream_stride + 5),
        y_stride(c.width + 1),
        res_stride(c.static_mix ? 0 : c.n_streams * c.n_streams + 3),
        post_stride(c.static_write ? 0 : c.n_streams + 2),
        x(random_values<T>(c.tokens * token_stride + 1, 1)),
        grad_out(random_values<T>(c.tokens * token_stride + 1, 2)),
        y(random_values<T>(c.tokens * y_stride + 1, 3)),
        h_res(random_values<T>((c.tokens + 1) * (c.n_streams * c.n_streams + 3), 4)),
        h_post(random_values<T>((c.tokens + 1) * (c.n_streams + 2), 5)),
        bias(random_values<T>(c.width, 6)) {}

  double x_at(int64_t t, int i, int64_t ch) const {
    return x[t * token_stride + i * stream_stride + ch];
  }
  double grad_at(int64_t t, int j, int64_t ch) const {
    return grad_out[t * token_stride + j * stream_stride + ch];
  }
  double y_at(int64_t t, int64_t ch) const {
    return y[t * y_stride + ch] + (c.has_bias ? static_cast<double>(bias[ch]) : 0.0);
  }
  double res_at(int64_t t, int j, int i) const {
    if (!c.has_mix) return i == j ? 1.0 : 0.0;
    return h_res[t * res_stride + j * c.n_streams + i];
  }
  double post_at(int64_t t, int j) const { return h_post[t * post_stride + j]; }
};

template <class T>
struct Result {
  Guarded<T> x_out, grad_x, grad_y, grad_h_res, grad_h_post, grad_bias, bias_partials;
  Guarded<double> partials;

  explicit Result(const Case& c)
      : x_out(c.tokens * c.n_streams * c.width),
        grad_x(x_out.size()),
        grad_y(c.tokens * c.width),
        grad_h_res(c.has_mix ? (c.static_mix ? 1 : c.tokens) * c.n_streams * c.n_streams : 0),
        grad_h_post((c.static_write ? 1 : c.tokens) * c.n_streams),
        grad_bias(c.has_bias ? c.width : 0),
        bias_partials(c.has_bias ? row_partitions(c.tokens, c.width) * c.width : 0),
        partials(row_partitions(c.tokens, c.width) * (c.n_streams + 1) * c.n_streams) {}

  bool intact() const {
    return x_out.intact() && grad_x.intact() && grad_y.intact() && grad_h_res.intact() &&
           grad_h_post.intact() && grad_bias.intact() && bias_partials.intact() &&
           partials.intact();
  }

  std::vector<T> all() {
    std::vector<T> values;
    for (Guarded<T>* part : {&x_out, &grad_x, &grad_y, &grad_h_res, &grad_h_post, &grad_bias}) {
      for (int64_t k = 0; k < part->size(); ++k) values.push_back((*part)[k]);
    }
    return values;
  }
};

template <class T>
void run(const Problem<T>& p, DType dtype, ParallelFor parallel_for, Result<T>* r) {
  const Case& c = p.c;
  const StreamsView x{p.x.data(), p.token_stride, p.stream_stride};
  const StreamsView grad_out{p.grad_out.data(), p.token_stride, p.stream_stride};
  const RowsView y{p.y.data(), p.y_stride};
  const RowsView h_res = c.has_mix ? RowsView{p.h_res.data(), p.res_stride} : RowsView{nullptr, 0};
  const RowsView h_post{p.h_post.data(), p.post_stride};
  const void* bias = c.has_bias ? p.bias.data() : nullptr;
  cpu::mix_write_forward(
      {c.tokens, c.n_streams, c.width, dtype, dtype, x, y, h_res, h_post, bias, r->x_out.data()},
      parallel_for);
  cpu::mix_write_backward(
      {c.tokens, c.n_streams, c.width, dtype, dtype, grad_out, x, y, h_res, h_post, bias,
       r->grad_x.data(), r->grad_y.data(), r->grad_h_res.data(), r->grad_h_post.data(),
       r->grad_bias.data(), r->partials.data(), r->bias_partials.data()},
      parallel_for);
}

template <class T>
void check(const Case& c, DType dtype, double tolerance, ParallelFor parallel_for) {
  const Problem<T> p(c);
  Result<T> r(c);
  run(p, dtype, parallel_for, &r);
  const int n = c.n_streams;
  std::vector<double> grad_res(static_cast<size_t>(c.tokens * n * n + n * n), 0.0);
  std::vector<double> grad_post(static_cast<size_t>(c.tokens * n + n), 0.0);
  std::vector<double> grad_bias(static_cast<size_t>(c.width), 0.0);
  double worst = 0;
  const auto expect = [&](double actual, double expected) {
    const double error = std::abs(actual - expected);
    if (error > worst || error != error) worst = error;  // NaN stays
  };
  for (int64_t t = 0; t < c.tokens; ++t) {
    double* res = grad_res.data() + (c.static_mix ? 0 : t * n * n);
    double* post = grad_post.data() + (c.static_write ? 0 : t * n);
    for (int64_t ch = 0; ch < c.width; ++ch) {
      double grad_y = 0;
      for (int j = 0; j < n; ++j) {
        double out = p.post_at(t, j) * p.y_at(t, ch), grad_x = 0;
        for (int i = 0; i < n; ++i) {
          out += p.res_at(t, j, i) * p.x_at(t, i, ch);
          grad_x += p.res_at(t, i, j) * p.grad_at(t, i, ch);
          res[j * n + i] += p.grad_at(t, j, ch) * p.x_at(t, i, ch);
        }
        grad_y += p.post_at(t, j) * p.grad_at(t, j, ch);
        post[j] += p.grad_at(t, j, ch) * p.y_at(t, ch);
        expect(r.x_out[(t * n + j) * c.width + ch], out);
        expect(r.grad_x[(t * n + j) * c.width + ch], grad_x);
      }
      grad_bias[ch] += grad_y;
      expect(r.grad_y[t * c.width + ch], grad_y);
    }
  }
  EXPECT_LE(worst, tolerance);
  worst = 0;
  for (int64_t k = 0; k < r.grad_h_res.size(); ++k) expect(r.grad_h_res[k], grad_res[k]);
  for (int64_t k = 0; k < r.grad_h_post.size(); ++k) expect(r.grad_h_post[k], grad_post[k]);
  for (int64_t k = 0; k < r.grad_bias.size(); ++k) expect(r.grad_bias[k], grad_bias[k]);
  EXPECT_LE(worst, 20 * tolerance);
  EXPECT_TRUE(r.intact());
}

TEST(MixWrite, EqualsPlainLoopsAtEveryIsaLevel) {
  for (const cpu::IsaLevel level : isa_levels()) {
    const AtIsaLevel at(level);
    for (const Case& c : cases()) {
      SCOPED_TRACE(::testing::Message() << cpu::isa_name(level) << " " << c);
      check<float>(c, DType::kFloat32, 1e-5, serial);
      check<double>(c, DType::kFloat64, 1e-13, threaded);
    }
  }
}

TEST(MixWrite, SameBitsOnAnyThreadsAndOnAvx2AndAvx512) {
  for (const Case& c :
       {Case{517, 4, 77, true, false, false, false}, Case{517, 4, 77, true, true, true, true},
        Case{517, 7, 77, true, true, false, false}, Case{517, 4, 77, false, false, true, true}}) {
    SCOPED_TRACE(::testing::Message() << c);
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
}

TEST(MixWrite, CompiledStreamCountsRoundAsTheRunTimeCount) {
  // n = 5 with a last stream of zeros is n = 4 with the run-time count.
  const Case four{9, 4, 53, true, true, true, false};
  const Case five{9, 5, 53, true, true, true, false};
  for (const cpu::IsaLevel level : isa_levels()) {
    const AtIsaLevel at(level);
    Problem<float> a(four), b(five);
    for (int64_t t = 0; t < 9; ++t) {
      for (int i = 0; i < 5; ++i) {
        for (int64_t ch = 0; ch < 53; ++ch) {
          b.x[t * b.token_stride + i * b.stream_stride + ch] =
              i < 4 ? a.x[t * a.token_stride + i * a.stream_stride + ch] : 0.0f;
        }
      }
    }
    for (int j = 0; j < 4; ++j) {
      for (int i = 0; i < 4; ++i) b.h_res[j * 5 + i] = a.h_res[j * 4 + i];
      b.h_post[j] = a.h_post[j];
    }
    Result<float> ra(four), rb(five);
    run(a, DType::kFloat32, serial, &ra);
    run(b, DType::kFloat32, serial, &rb);
    for (int64_t t = 0; t < 9; ++t) {
      for (int64_t k = 0; k < 4 * 53; ++k) {
        EXPECT_EQ(ra.x_out[t * 4 * 53 + k], rb.x_out[t * 5 * 53 + k]);
      }
    }
  }
}

TEST(MixWrite, ConvertsTheBranchOutputOfAnotherDtype) {
  // bfloat16 1.5, -2, 0.25; the sums are exact.
  const uint16_t y[3] = {0x3fc0, 0xc000, 0x3e80};
  const float x[6] = {1, 2, 3, 4, 5, 6}, h_res[4] = {0, 1, 2, 0}, h_post[2] = {1, -1};
  for (const cpu::IsaLevel level : isa_levels()) {
    const AtIsaLevel at(level);
    Guarded<float> out(6), grad_x(6), grad_h_res(4), grad_h_post(2);
    Guarded<uint16_t> grad_y(3);
    Guarded<double> partials(6);
    cpu::mix_write_forward({1,
                            2,
                            3,
                            DType::kFloat32,
                            DType::kBFloat16,
                            {x, 6, 3},
                            {y, 3},
                            {h_res, 0},
                            {h_post, 0},
                            nullptr,
                            out.data()},
                           serial);
    EXPECT_EQ(out.copy(), (std::vector<float>{5.5f, 3.0f, 6.25f, 0.5f, 6.0f, 5.75f}));
    cpu::mix_write_backward({1,
                             2,
                             3,
                             DType::kFloat32,
                             DType::kBFloat16,
                             {x, 6, 3},
                             {x, 6, 3},
                             {y, 3},
                             {h_res, 0},
                             {h_post, 0},
                             nullptr,
                             grad_x.data(),
                             grad_y.data(),
                             grad_h_res.data(),
                             grad_h_post.data(),
                             nullptr,
                             partials.data(),
                             nullptr},
                            serial);
    EXPECT_EQ(grad_x.copy(), (std::vector<float>{8, 10, 12, 1, 2, 3}));
    EXPECT_EQ(grad_y.copy(), (std::vector<uint16_t>{0xc040, 0xc040, 0xc040}));
    EXPECT_EQ(grad_h_res.copy(), (std::vector<float>{14, 32, 32, 77}));
    EXPECT_EQ(grad_h_post.copy(), (std::vector<float>{-1.75f, -2.5f}));
    EXPECT_TRUE(out.intact() && grad_x.intact() && grad_y.intact() && partials.intact());
  }
}

/// Bits of a float in bfloat16 or float16; exact for small integers.
uint16_t half_bits(float value, DType dtype) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  if (dtype == DType::kBFloat16) return static_cast<uint16_t>(bits >> 16);
  const uint32_t magnitude = bits & 0x7fffffff;
  const uint32_t half = magnitude == 0 ? 0 : (magnitude - (112u << 23)) >> 13;
  return static_cast<uint16_t>((bits >> 31 << 15) | half);
}

TEST(MixWrite, HalfPrecisionStreamsAgreeOnIntegers) {
  for (const int n : {3, 4, 5, 8}) {
    const Case c{7, n, 37, true, false, false, false};
    Problem<float> p(c);
    for (std::vector<float>* values : {&p.x, &p.grad_out, &p.y, &p.h_res, &p.h_post}) {
      for (float& value : *values) value = std::round(value * 2);
    }
    Result<float> single(c);
    run(p, DType::kFloat32, serial, &single);
    for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
      const auto narrow = [&](const std::vector<float>& values) {
        std::vector<uint16_t> bits;
        for (const float value : values) bits.push_back(half_bits(value, dtype));
        return bits;
      };
      const std::vector<uint16_t> x = narrow(p.x), y = narrow(p.y), grad = narrow(p.grad_out);
      for (const cpu::IsaLevel level : isa_levels()) {
        SCOPED_TRACE(::testing::Message()
                     << cpu::isa_name(level) << " n=" << n << " dtype=" << static_cast<int>(dtype));
        const AtIsaLevel at(level);
        Guarded<uint16_t> out(single.x_out.size()), grad_x(out.size()), grad_y(7 * 37);
        Result<float> r(c);
        const StreamsView x_view{x.data(), p.token_stride, p.stream_stride};
        const RowsView y_view{y.data(), p.y_stride}, h_res{p.h_res.data(), p.res_stride};
        const RowsView h_post{p.h_post.data(), p.post_stride};
        cpu::mix_write_forward(
            {7, n, 37, dtype, dtype, x_view, y_view, h_res, h_post, nullptr, out.data()}, serial);
        cpu::mix_write_backward({7,
                                 n,
                                 37,
                                 dtype,
                                 dtype,
                                 {grad.data(), p.token_stride, p.stream_stride},
                                 x_view,
                                 y_view,
                                 h_res,
                                 h_post,
                                 nullptr,
                                 grad_x.data(),
                                 grad_y.data(),
                                 r.grad_h_res.data(),
                                 r.grad_h_post.data(),
                                 nullptr,
                                 r.partials.data(),
                                 nullptr},
                                serial);
        EXPECT_EQ(out.copy(), narrow(single.x_out.copy()));
        EXPECT_EQ(grad_x.copy(), narrow(single.grad_x.copy()));
        EXPECT_EQ(grad_y.copy(), narrow(single.grad_y.copy()));
        EXPECT_EQ(r.grad_h_res.copy(), single.grad_h_res.copy());
        EXPECT_EQ(r.grad_h_post.copy(), single.grad_h_post.copy());
        EXPECT_TRUE(out.intact() && grad_x.intact() && grad_y.intact());
      }
    }
  }
}

}  // namespace
}  // namespace hyperstreams::testing
