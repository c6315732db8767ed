// The kernels of csrc/kernels/cuda/expand.cu, emulated, against plain loops.
#include <gtest/gtest.h>

#include "cuda_testing.h"
#include "hyperstreams/expand.h"
#include "hyperstreams/plan.h"

namespace hyperstreams::cuda::testing {
namespace {

struct Case {
  int64_t tokens;
  int n_streams;
  int64_t width;
  bool has_scale, has_bias;
  // Elements by which buffers are off a 16-byte boundary, and by which rows are wider.
  int64_t offset = 0, padding = 0;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << "T=" << c.tokens << " n=" << c.n_streams << " C=" << c.width
             << " scale=" << c.has_scale << " bias=" << c.has_bias << " offset=" << c.offset
             << " padding=" << c.padding;
}

template <class S>
struct Outputs {
  std::vector<S> x, grad_h;
  std::vector<float> grad_scale, grad_bias;
};

template <class S>
bool same_bits(const Outputs<S>& a, const Outputs<S>& b) {
  return same_bytes(a.x, b.x) && same_bytes(a.grad_h, b.grad_h) &&
         same_bytes(a.grad_scale, b.grad_scale) && same_bytes(a.grad_bias, b.grad_bias);
}

template <class S>
class Problem {
 public:
  explicit Problem(const Case& c)
      : c_(c),
        h_(c.tokens, 1, c.width, 1, c.offset, c.padding),
        grad_(c.tokens, c.n_streams, c.width, 2, c.offset, c.padding),
        scale_(1, c.n_streams, c.width, 3, c.offset),
        bias_(1, c.n_streams, c.width, 4, c.offset) {}

  ExpandArgs forward_args(void* x) const {
    return {c_.tokens,
            c_.n_streams,
            c_.width,
            kDType<S>,
            h_.rows(),
            c_.has_scale ? scale_.rows().data : nullptr,
            c_.has_bias ? bias_.rows().data : nullptr,
            x};
  }

  Outputs<S> run() const {
    const auto [tokens, n, width, has_scale, has_bias, offset, padding] = c_;
    Output<S> x(tokens * n * width, offset), grad_h(tokens * width, offset);
    Guarded<float> grad_scale(has_scale ? n * width : 0), grad_bias(has_bias ? n * width : 0);
    const int64_t parts = plan_expand(tokens, n, width, kDType<S>, 2).sums.parts;
    Guarded<float> partials(has_scale || has_bias ? parts * 2 * n * width : 0);
    const ExpandArgs args = forward_args(x.data());
    EXPECT_EQ(expand_forward(args, nullptr), Status::kOk);
    EXPECT_EQ(expand_backward({tokens, n, width, args.dtype, grad_.streams(), args.h, args.scale,
                               grad_h.data(), has_scale ? grad_scale.data() : nullptr,
                               has_bias ? grad_bias.data() : nullptr, partials.data()},
                              nullptr),
              Status::kOk);
    EXPECT_TRUE(x.intact() && grad_h.intact() && grad_scale.intact() && grad_bias.intact() &&
                partials.intact());
    return {x.values(), grad_h.values(), grad_scale.copy(), grad_bias.copy()};
  }

  /// X has the bits of one fused multiply-add; everything else is near its float64 value.
  void check(const Outputs<S>& out) const {
    const int n = c_.n_streams;
    std::vector<double> grad_scale(out.grad_scale.size(), 0.0),
        grad_bias(out.grad_bias.size(), 0.0);
    int64_t wrong_bits = 0;
    for (int64_t t = 0; t < c_.tokens; ++t) {
      for (int64_t ch = 0; ch < c_.width; ++ch) {
        double grad_h = 0;
        for (int i = 0; i < n; ++i) {
          const float h = h_.at(t, 0, ch), g = grad_.at(t, i, ch);
          const float scale = c_.has_scale ? scale_.at(0, i, ch) : 1;
          const float bias = c_.has_bias ? bias_.at(0, i, ch) : 0;
          const S exact = from_float<S>(c_.has_bias ? std::fmaf(h, scale, bias) : h * scale);
          const S x = out.x[(t * n + i) * c_.width + ch];
          wrong_bits += std::memcmp(&x, &exact, sizeof(S)) != 0;
          grad_h += double{scale} * g;
          if (c_.has_scale) grad_scale[i * c_.width + ch] += double{h} * g;
          if (c_.has_bias) grad_bias[i * c_.width + ch] += g;
        }
        expect_rounded(out.grad_h[t * c_.width + ch], grad_h);
      }
    }
    EXPECT_EQ(wrong_bits, 0);
    for (size_t k = 0; k < grad_scale.size(); ++k) {
      EXPECT_NEAR(out.grad_scale[k], grad_scale[k], 1e-4);
    }
    for (size_t k = 0; k < grad_bias.size(); ++k) EXPECT_NEAR(out.grad_bias[k], grad_bias[k], 1e-4);
  }

 private:
  Case c_;
  Operand<S> h_, grad_;
  Operand<float> scale_, bias_;
};

template <class S>
void check_case(const Case& c) {
  SCOPED_TRACE(::testing::Message() << c << " element bytes=" << sizeof(S));
  const Problem<S> problem(c);
  problem.check(run_in_both_orders([&] { return problem.run(); }));
}

TEST(CudaExpand, EqualsPlainLoopsForEveryStreamCount) {
  for (int n = 1; n <= kMaxStreams; ++n) {
    check_case<float>({3, n, 37, true, true});
    check_case<BFloat16>({9, n, 24, true, n % 2 == 0});
    check_case<Float16>({2, n, 9, false, n % 2 == 1});
    check_case<float>({1, n, 8, false, false});
    check_case<float>({0, n, 8, true, true});
  }
}

TEST(CudaExpand, EqualsPlainLoopsOnWideRows) {
  check_case<float>({2, 3, 516, true, true});
  check_case<BFloat16>({3, 4, 1032, true, true});
  check_case<Float16>({2, 2, 1025, true, false});
}

// Several parts; more tokens than a thread takes at once.
TEST(CudaExpand, SumsOverEverySplit) {
  ASSERT_GT(plan_expand(1100, 2, 8, DType::kBFloat16, 16).sums.parts, 1);
  check_case<BFloat16>({1100, 2, 8, true, true});
  ASSERT_GT(plan_expand(70, 1, 300, DType::kFloat32, 16).sums.parts, 1);
  check_case<float>({70, 1, 300, true, true});
}

TEST(CudaExpand, SameBitsAtAnyAlignmentAndStride) {
  const Outputs<BFloat16> out = Problem<BFloat16>({70, 4, 24, true, true}).run();
  for (const auto& [offset, padding] : {std::pair{1, 0}, {0, 1}, {8, 8}, {3, 5}}) {
    const Case shape{70, 4, 24, true, true, offset, padding};
    EXPECT_TRUE(same_bits(Problem<BFloat16>(shape).run(), out)) << shape;
  }
}

TEST(CudaExpand, AgreesWithTheCpuKernel) {
  const Problem<float> problem({5, 4, 50, true, true});
  std::vector<float> x(5 * 4 * 50);
  cpu::expand_forward(problem.forward_args(x.data()), hyperstreams::testing::serial);
  const Outputs<float> out = problem.run();
  for (size_t k = 0; k < x.size(); ++k) EXPECT_FLOAT_EQ(out.x[k], x[k]);
}

TEST(CudaExpand, RefusesDouble) {
  ExpandArgs args = {};
  args.dtype = DType::kFloat64;
  EXPECT_EQ(expand_forward(args, nullptr), Status::kUnsupportedDType);
  ExpandBackwardArgs backward = {};
  backward.dtype = DType::kFloat64;
  EXPECT_EQ(expand_backward(backward, nullptr), Status::kUnsupportedDType);
}

}  // namespace
}  // namespace hyperstreams::cuda::testing
