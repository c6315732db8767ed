// The kernels of csrc/kernels/cuda/read.cu, emulated, against plain loops.
#include <gtest/gtest.h>

#include <cmath>

#include "hyperstreams/plan.h"
#include "hyperstreams/read.h"
#include "kernel_testing.h"
#include "kernels/cuda/device/device.h"

namespace hyperstreams::cuda {
namespace {

using testing::Guarded;

template <class S>
constexpr DType kDType = sizeof(S) == 4                ? DType::kFloat32
                         : std::is_same_v<S, BFloat16> ? DType::kBFloat16
                                                       : DType::kFloat16;

/// Largest relative error of one rounding to S.
template <class S>
constexpr double kHalfUlp = sizeof(S) == 4                ? 6e-8
                            : std::is_same_v<S, BFloat16> ? 1. / 256
                                                          : 1. / 2048;

struct Case {
  int64_t tokens;
  int n_streams;
  int64_t width;
  bool is_static;
  // Elements by which buffers are off a 16-byte boundary, and by which rows of X are wider.
  int64_t offset = 0, padding = 0;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << "T=" << c.tokens << " n=" << c.n_streams << " C=" << c.width
             << " static=" << c.is_static << " offset=" << c.offset << " padding=" << c.padding;
}

template <class S>
std::vector<S> stored(const std::vector<float>& values, int64_t offset) {
  std::vector<S> out(static_cast<size_t>(offset));
  for (const float value : values) out.push_back(from_float<S>(value));
  return out;
}

/// Element (t, i, c) is the same whatever the layout and the number of tokens.
std::vector<float> values_of(int64_t size, uint32_t seed) {
  return testing::random_values<float>(size, seed);
}

template <class S>
struct Outputs {
  std::vector<S> u, grad_x;
  std::vector<float> grad_h;
};

template <class S>
bool same_bits(const std::vector<S>& a, const std::vector<S>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(S)) == 0);
}

template <class S>
bool same_bits(const Outputs<S>& a, const Outputs<S>& b) {
  return same_bits(a.u, b.u) && same_bits(a.grad_x, b.grad_x) && same_bits(a.grad_h, b.grad_h);
}

template <class S>
class Problem {
 public:
  explicit Problem(const Case& shape)
      : c_(shape),
        stream_stride_(shape.width + shape.padding),
        token_stride_(shape.n_streams * stream_stride_ + shape.padding),
        h_stride_(shape.is_static ? 0 : shape.n_streams + 1) {
    const auto [tokens, n, width, is_static, offset, padding] = shape;
    const std::vector<float> x = values_of(tokens * n * width, 1);
    std::vector<float> padded(static_cast<size_t>(tokens * token_stride_), NAN);
    for (int64_t row = 0; row < tokens * n; ++row) {
      for (int64_t ch = 0; ch < width; ++ch) {
        padded[row / n * token_stride_ + row % n * stream_stride_ + ch] = x[row * width + ch];
      }
    }
    x_ = stored<S>(padded, offset);
    h_ = values_of((is_static ? 1 : tokens) * (n + 1), 2);
    grad_u_ = stored<S>(values_of(tokens * width, 3), offset);
  }

  Outputs<S> run() {
    const auto [tokens, n, width, is_static, offset, padding] = c_;
    const StreamsView x{x_.data() + offset, token_stride_, stream_stride_};
    const RowsView h{h_.data(), h_stride_};
    const RowsView grad_u{grad_u_.data() + offset, width};
    Guarded<S> u(tokens * width + offset), grad_x(tokens * n * width + offset);
    Guarded<float> grad_h(is_static ? n : tokens * n);
    const int64_t parts = plan_read(tokens, width, kDType<S>, 2, is_static).partials;
    Guarded<double> partials(parts * n);
    EXPECT_EQ(read_forward({tokens, n, width, kDType<S>, x, h, u.data() + offset}, nullptr),
              Status::kOk);
    EXPECT_EQ(read_backward({tokens, n, width, kDType<S>, x, h, grad_u, grad_x.data() + offset,
                             grad_h.data(), partials.data()},
                            nullptr),
              Status::kOk);
    EXPECT_TRUE(u.intact() && grad_x.intact() && grad_h.intact() && partials.intact());
    const auto beyond = [offset = offset](const std::vector<S>& all) {
      return std::vector<S>(all.begin() + offset, all.end());
    };
    return {beyond(u.copy()), beyond(grad_x.copy()), grad_h.copy()};
  }

  void check(const Outputs<S>& out) const {
    const auto [tokens, n, width, is_static, offset, padding] = c_;
    std::vector<double> grad_h(out.grad_h.size(), 0.0);
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t ch = 0; ch < width; ++ch) {
        const double g = to_float(grad_u_[offset + t * width + ch]);
        double u = 0;
        for (int i = 0; i < n; ++i) {
          const double x = to_float(x_[offset + t * token_stride_ + i * stream_stride_ + ch]);
          const double h = h_[t * h_stride_ + i];
          u += h * x;
          grad_h[(is_static ? 0 : t * n) + i] += g * x;
          near(out.grad_x[(t * n + i) * width + ch], h * g);
        }
        near(out.u[t * width + ch], u);
      }
    }
    for (size_t k = 0; k < grad_h.size(); ++k) EXPECT_NEAR(out.grad_h[k], grad_h[k], 1e-3);
  }

 private:
  static void near(S actual, double expected) {
    EXPECT_NEAR(to_float(actual), expected, std::abs(expected) * kHalfUlp<S> + 2e-6);
  }

  Case c_;
  int64_t stream_stride_, token_stride_, h_stride_;
  std::vector<S> x_, grad_u_;
  std::vector<float> h_;
};

template <class S>
void check_case(const Case& shape) {
  SCOPED_TRACE(::testing::Message() << shape << " element bytes=" << sizeof(S));
  Problem<S> problem(shape);
  emulation::set_order(emulation::Order::kAscending);
  const Outputs<S> out = problem.run();
  problem.check(out);
  emulation::set_order(emulation::Order::kDescending);
  EXPECT_TRUE(same_bits(out, problem.run())) << "depends on the order of threads";
  emulation::set_order(emulation::Order::kAscending);
}

// Widths below, at and around one vector (4 or 8 elements) and one warp of vectors.
TEST(CudaRead, EqualsPlainLoops) {
  for (const int n : {1, 2, 3, 4, 5, 8, 16}) {
    for (const bool is_static : {false, true}) {
      for (const int64_t width : {1, 8, 37, 264}) check_case<float>({11, n, width, is_static});
      for (const int64_t width : {3, 264}) check_case<BFloat16>({9, n, width, is_static});
      for (const int64_t width : {13, 16}) check_case<Float16>({2, n, width, is_static});
      for (const int64_t tokens : {0, 1}) check_case<float>({tokens, n, 12, is_static});
    }
  }
}

TEST(CudaRead, EqualsPlainLoopsOnWideRows) {
  for (const int n : {1, 2, 3, 4, 6, 8}) {
    for (const bool is_static : {false, true}) {
      check_case<float>({3, n, 1028, is_static});
      check_case<BFloat16>({2, n, 2064, is_static});
      check_case<Float16>({2, n, 1025, is_static});
    }
  }
  check_case<float>({2, 4, 16385, false});
}

TEST(CudaRead, SameBitsAtAnyAlignmentAndStride) {
  for (const int64_t width : {24, 1032}) {
    for (const bool is_static : {false, true}) {
      const Outputs<BFloat16> out = Problem<BFloat16>({5, 4, width, is_static}).run();
      for (const auto& [offset, padding] : {std::pair{1, 0}, {0, 1}, {0, 8}, {8, 8}, {3, 5}}) {
        const Case shape{5, 4, width, is_static, offset, padding};
        Problem<BFloat16> problem(shape);
        EXPECT_TRUE(same_bits(problem.run(), out)) << shape;
      }
    }
  }
}

TEST(CudaRead, TokensDoNotDependOnTheBatch) {
  const Outputs<float> all = Problem<float>({21, 4, 40, false}).run();
  for (const int64_t tokens : {1, 2, 8, 9, 20}) {
    const Outputs<float> few = Problem<float>({tokens, 4, 40, false}).run();
    EXPECT_EQ(std::memcmp(few.u.data(), all.u.data(), few.u.size() * sizeof(float)), 0);
    EXPECT_EQ(std::memcmp(few.grad_h.data(), all.grad_h.data(), few.grad_h.size() * 4), 0);
  }
}

// One token more than a block takes at once; several blocks; more tokens than there may be blocks.
TEST(CudaRead, StaticSumsOverEverySplit) {
  check_case<BFloat16>({9, 2, 3, true});
  check_case<BFloat16>({100, 2, 3, true});
  ASSERT_EQ(plan_read(1030, 516, DType::kFloat32, 16, true).tokens_per_block, 2);
  check_case<float>({1030, 1, 516, true});
}

TEST(CudaRead, AgreesWithTheCpuKernel) {
  const int64_t tokens = 9, width = 50;
  const int n = 4;
  Problem<float> problem({tokens, n, width, false});
  const Outputs<float> out = problem.run();
  const std::vector<float> x = values_of(tokens * n * width, 1);
  const std::vector<float> h = values_of(tokens * (n + 1), 2);
  std::vector<float> u(static_cast<size_t>(tokens * width));
  cpu::read_forward({tokens,
                     n,
                     width,
                     DType::kFloat32,
                     {x.data(), n * width, width},
                     {h.data(), n + 1},
                     u.data()},
                    testing::serial);
  for (size_t k = 0; k < u.size(); ++k) EXPECT_FLOAT_EQ(out.u[k], u[k]);
}

TEST(CudaRead, RefusesDouble) {
  EXPECT_EQ(read_forward({0, 4, 8, DType::kFloat64, {}, {}, nullptr}, nullptr),
            Status::kUnsupportedDType);
  EXPECT_EQ(
      read_backward({0, 4, 8, DType::kFloat64, {}, {}, {}, nullptr, nullptr, nullptr}, nullptr),
      Status::kUnsupportedDType);
  EXPECT_STREQ(status_message(Status::kUnsupportedDType),
               "this dtype has no CUDA kernel (float32, bfloat16 and float16 have)");
}

}  // namespace
}  // namespace hyperstreams::cuda
