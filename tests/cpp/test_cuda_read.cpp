// The kernels of csrc/kernels/cuda/read.cu, emulated, against plain loops.
#include <gtest/gtest.h>

#include "cuda_testing.h"
#include "hyperstreams/plan.h"
#include "hyperstreams/read.h"

namespace hyperstreams::cuda::testing {
namespace {

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
struct Outputs {
  std::vector<S> u, grad_x;
  std::vector<float> grad_h;
};

template <class S>
bool same_bits(const Outputs<S>& a, const Outputs<S>& b) {
  return same_bytes(a.u, b.u) && same_bytes(a.grad_x, b.grad_x) && same_bytes(a.grad_h, b.grad_h);
}

template <class S>
class Problem {
 public:
  explicit Problem(const Case& c)
      : c_(c),
        x_(c.tokens, c.n_streams, c.width, 1, c.offset, c.padding),
        h_(c.tokens, c.n_streams, c.is_static, 2),
        grad_u_(c.tokens, 1, c.width, 3, c.offset) {}

  ReadArgs forward_args(void* u) const {
    return {c_.tokens, c_.n_streams, c_.width, kDType<S>, x_.streams(), h_.rows(), u};
  }

  Outputs<S> run() const {
    const auto [tokens, n, width, is_static, offset, padding] = c_;
    Output<S> u(tokens * width, offset), grad_x(tokens * n * width, offset);
    Guarded<float> grad_h(is_static ? n : tokens * n);
    const int64_t parts = plan_read(tokens, width, kDType<S>, 2, is_static).backward.partials;
    Guarded<double> partials(parts * n);
    EXPECT_EQ(read_forward(forward_args(u.data()), nullptr), Status::kOk);
    EXPECT_EQ(read_backward({tokens, n, width, kDType<S>, x_.streams(), h_.rows(), grad_u_.rows(),
                             grad_x.data(), grad_h.data(), partials.data()},
                            nullptr),
              Status::kOk);
    EXPECT_TRUE(u.intact() && grad_x.intact() && grad_h.intact() && partials.intact());
    return {u.values(), grad_x.values(), grad_h.copy()};
  }

  void check(const Outputs<S>& out) const {
    const auto [tokens, n, width, is_static, offset, padding] = c_;
    std::vector<double> grad_h(out.grad_h.size(), 0.0);
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t ch = 0; ch < width; ++ch) {
        const double g = grad_u_.at(t, 0, ch);
        double u = 0;
        for (int i = 0; i < n; ++i) {
          u += double{h_.at(t, i)} * x_.at(t, i, ch);
          grad_h[(is_static ? 0 : t * n) + i] += g * x_.at(t, i, ch);
          expect_rounded(out.grad_x[(t * n + i) * width + ch], h_.at(t, i) * g);
        }
        expect_rounded(out.u[t * width + ch], u);
      }
    }
    for (size_t k = 0; k < grad_h.size(); ++k) EXPECT_NEAR(out.grad_h[k], grad_h[k], 1e-3);
  }

 private:
  Case c_;
  Operand<S> x_;
  Coefficients h_;
  Operand<S> grad_u_;
};

template <class S>
void check_case(const Case& c) {
  SCOPED_TRACE(::testing::Message() << c << " element bytes=" << sizeof(S));
  const Problem<S> problem(c);
  problem.check(run_in_both_orders([&] { return problem.run(); }));
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
  ASSERT_EQ(plan_read(1030, 516, DType::kFloat32, 16, true).backward.tokens_per_block, 2);
  check_case<float>({1030, 1, 516, true});
}

TEST(CudaRead, AgreesWithTheCpuKernel) {
  const Problem<float> problem({9, 4, 50, false});
  std::vector<float> u(9 * 50);
  cpu::read_forward(problem.forward_args(u.data()), hyperstreams::testing::serial);
  const Outputs<float> out = problem.run();
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
}  // namespace hyperstreams::cuda::testing
