// The kernels of csrc/kernels/cuda/mix_write*.cu, emulated, against plain loops.
#include <gtest/gtest.h>

#include "cuda_testing.h"
#include "hyperstreams/mix_write.h"
#include "hyperstreams/plan.h"

namespace hyperstreams::cuda::testing {
namespace {

struct Case {
  int64_t tokens;
  int n_streams;
  int64_t width;
  bool has_mix = true, static_mix = false, static_write = false, has_bias = false;
  // Elements by which buffers are off a 16-byte boundary, and by which rows are wider.
  int64_t offset = 0, padding = 0;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << "T=" << c.tokens << " n=" << c.n_streams << " C=" << c.width << " mix=" << c.has_mix
             << " static=" << c.static_mix << c.static_write << " bias=" << c.has_bias
             << " offset=" << c.offset << " padding=" << c.padding;
}

template <class S, class Y>
struct Outputs {
  std::vector<S> x_out, grad_x;
  std::vector<Y> grad_y;
  std::vector<float> grad_h_res, grad_h_post, grad_bias;
};

template <class S, class Y>
bool same_bits(const Outputs<S, Y>& a, const Outputs<S, Y>& b) {
  return same_bytes(a.x_out, b.x_out) && same_bytes(a.grad_x, b.grad_x) &&
         same_bytes(a.grad_y, b.grad_y) && same_bytes(a.grad_h_res, b.grad_h_res) &&
         same_bytes(a.grad_h_post, b.grad_h_post) && same_bytes(a.grad_bias, b.grad_bias);
}

template <class S, class Y>
class Problem {
 public:
  explicit Problem(const Case& c)
      : c_(c),
        x_(c.tokens, c.n_streams, c.width, 1, c.offset, c.padding),
        grad_(c.tokens, c.n_streams, c.width, 2, c.offset, c.padding),
        y_(c.tokens, 1, c.width, 3, c.offset, c.padding),
        h_res_(c.tokens, c.n_streams * c.n_streams, c.static_mix, 4),
        h_post_(c.tokens, c.n_streams, c.static_write, 5),
        bias_(1, 1, c.width, 6, c.offset) {}

  MixWriteArgs forward_args(void* x_out) const {
    const RowsView h_res = c_.has_mix ? h_res_.rows() : RowsView{nullptr, 0};
    return {c_.tokens,      c_.n_streams,
            c_.width,       kDType<S>,
            kDType<Y>,      x_.streams(),
            y_.rows(),      h_res,
            h_post_.rows(), c_.has_bias ? bias_.rows().data : nullptr,
            x_out};
  }

  Outputs<S, Y> run() const {
    const auto [tokens, n, width, has_mix, static_mix, static_write, has_bias, offset, padding] =
        c_;
    Output<S> x_out(tokens * n * width, offset), grad_x(tokens * n * width, offset);
    Output<Y> grad_y(tokens * width, offset);
    Guarded<float> grad_h_res(has_mix ? (static_mix ? 1 : tokens) * n * n : 0);
    Guarded<float> grad_h_post((static_write ? 1 : tokens) * n), grad_bias(has_bias ? width : 0);
    const bool is_static = (has_mix && static_mix) || static_write;
    const MixWritePlan plan = plan_mix_write(tokens, width, kDType<S>, 2, is_static);
    Guarded<double> partials(plan.backward.partials * (n * n + n));
    Guarded<float> bias_partials(has_bias ? plan.bias.parts * width : 0);
    const MixWriteArgs args = forward_args(x_out.data());
    EXPECT_EQ(mix_write_forward(args, nullptr), Status::kOk);
    EXPECT_EQ(mix_write_backward({tokens, n, width, args.dtype, args.y_dtype, grad_.streams(),
                                  args.x, args.y, args.h_res, args.h_post, args.bias, grad_x.data(),
                                  grad_y.data(), grad_h_res.data(), grad_h_post.data(),
                                  grad_bias.data(), partials.data(), bias_partials.data()},
                                 nullptr),
              Status::kOk);
    EXPECT_TRUE(x_out.intact() && grad_x.intact() && grad_y.intact() && grad_h_res.intact() &&
                grad_h_post.intact() && grad_bias.intact() && partials.intact() &&
                bias_partials.intact());
    return {x_out.values(),    grad_x.values(),    grad_y.values(),
            grad_h_res.copy(), grad_h_post.copy(), grad_bias.copy()};
  }

  /// X' has the bits of the contract's order; everything else is near its float64 value.
  void check(const Outputs<S, Y>& out) const {
    const int n = c_.n_streams;
    std::vector<double> grad_res(out.grad_h_res.size(), 0.0),
        grad_post(out.grad_h_post.size(), 0.0);
    std::vector<double> grad_bias(c_.has_bias ? c_.width : 0, 0.0);
    int64_t wrong_bits = 0;
    for (int64_t t = 0; t < c_.tokens; ++t) {
      const int64_t res = c_.static_mix ? 0 : t * n * n, post = c_.static_write ? 0 : t * n;
      for (int64_t ch = 0; ch < c_.width; ++ch) {
        const float branch = y_.at(t, 0, ch) + (c_.has_bias ? bias_.at(0, 0, ch) : 0.0f);
        double grad_y = 0;
        for (int j = 0; j < n; ++j) {
          double grad_x = 0;
          for (int i = 0; i < n; ++i) {
            grad_x += mix_at(t, i, j) * grad_.at(t, i, ch);
            if (c_.has_mix)
              grad_res[res + j * n + i] += double{grad_.at(t, j, ch)} * x_.at(t, i, ch);
          }
          expect_rounded(out.grad_x[(t * n + j) * c_.width + ch], grad_x);
          const S x_out = out.x_out[(t * n + j) * c_.width + ch];
          const S exact = from_float<S>(std::fmaf(h_post_.at(t, j), branch, mixed(t, j, ch)));
          wrong_bits += std::memcmp(&x_out, &exact, sizeof(S)) != 0;
          grad_y += double{h_post_.at(t, j)} * grad_.at(t, j, ch);
          grad_post[post + j] += double{grad_.at(t, j, ch)} * branch;
        }
        expect_rounded(out.grad_y[t * c_.width + ch], grad_y);
        if (c_.has_bias) grad_bias[ch] += grad_y;
      }
    }
    EXPECT_EQ(wrong_bits, 0);
    near(out.grad_h_res, grad_res);
    near(out.grad_h_post, grad_post);
    near(out.grad_bias, grad_bias);
  }

 private:
  double mix_at(int64_t t, int j, int i) const {
    return c_.has_mix ? h_res_.at(t, j * c_.n_streams + i) : i == j;
  }
  /// The mix of destination j in the contract's order.
  float mixed(int64_t t, int j, int64_t ch) const {
    if (!c_.has_mix) return x_.at(t, j, ch);
    const int n = c_.n_streams;
    float sum = h_res_.at(t, j * n) * x_.at(t, 0, ch);
    for (int i = 1; i < n; ++i) sum = std::fmaf(h_res_.at(t, j * n + i), x_.at(t, i, ch), sum);
    return sum;
  }
  static void near(const std::vector<float>& actual, const std::vector<double>& expected) {
    ASSERT_EQ(actual.size(), expected.size());
    for (size_t k = 0; k < expected.size(); ++k) EXPECT_NEAR(actual[k], expected[k], 1e-3);
  }

  Case c_;
  Operand<S> x_, grad_;
  Operand<Y> y_;
  Coefficients h_res_, h_post_;
  Operand<float> bias_;
};

template <class S, class Y = S>
void check_case(const Case& c) {
  SCOPED_TRACE(::testing::Message() << c << " bytes of x, y=" << sizeof(S) << sizeof(Y));
  const Problem<S, Y> problem(c);
  problem.check(run_in_both_orders([&] { return problem.run(); }));
}

// Widths below, at and around one vector; every n, with and without mix, bias, static coefficients.
TEST(CudaMixWrite, EqualsPlainLoopsForEveryStreamCount) {
  for (int n = 1; n <= kMaxStreams; ++n) {
    check_case<float>({2, n, 37});
    check_case<BFloat16>({3, n, 16, false, false, false, n % 2 == 0});
    // Sums over tokens take most of the time.
    if (n % 3 == 0) check_case<float>({0, n, 8, true, true, true, true});
    if (n % 3 == 1) check_case<float>({3, n, 12, true, true, true, true});
    if (n % 3 == 2) check_case<BFloat16>({2, n, 24, true, false, true, true});
    if (n % 4 == 3) check_case<Float16>({1, n, 9, true, true, false, false});
    if (n % 4 == 2) check_case<float>({2, n, 5, false, false, true, false});
  }
}

TEST(CudaMixWrite, BranchMayHaveAnotherType) {
  for (const int64_t width : {8, 21}) {
    for (const bool has_mix : {false, true}) {
      const Case c{3, 4, width, has_mix, false, false, true};
      check_case<float, BFloat16>(c);
      check_case<float, Float16>(c);
      check_case<BFloat16, float>(c);
      check_case<Float16, BFloat16>(c);
    }
  }
}

// More than 128 vectors: several steps of a warp, the last not full.
TEST(CudaMixWrite, EqualsPlainLoopsOnWideRows) {
  for (const int n : {1, 3, 4, 6}) {
    check_case<float>({2, n, 516, true, false, false, true});
    check_case<BFloat16>({2, n, 1032, true, true, true, false});
    check_case<Float16>({1, n, 1025});
    check_case<float>({2, n, 516, false, false, true, true});
  }
}

// One token more than a block takes at once; several blocks and parts; more tokens than blocks.
TEST(CudaMixWrite, StaticSumsOverEverySplit) {
  check_case<BFloat16>({9, 2, 3, true, true, true, true});
  check_case<BFloat16>({30, 3, 3, true, true, true, true});
  ASSERT_GT(plan_mix_write(70, 256, DType::kBFloat16, 16, true).bias.parts, 1);
  check_case<BFloat16>({70, 1, 256, true, false, false, true});
  ASSERT_EQ(plan_mix_write(8193, 3, DType::kFloat32, 16, true).backward.tokens_per_block, 9);
  check_case<float>({8193, 1, 3, false, false, true, false});
}

TEST(CudaMixWrite, SameBitsAtAnyAlignmentAndStride) {
  for (const auto& [n, width, has_mix] :
       {std::tuple{4, 24, true}, {3, 1032, true}, {5, 24, true}, {4, 24, false}}) {
    const Case aligned{3, n, width, has_mix, false, n == 4, true};
    const auto out = Problem<BFloat16, BFloat16>(aligned).run();
    for (const auto& [offset, padding] : {std::pair{1, 0}, {0, 1}, {8, 8}, {3, 5}}) {
      Case shape = aligned;
      shape.offset = offset;
      shape.padding = padding;
      EXPECT_TRUE(same_bits(Problem<BFloat16, BFloat16>(shape).run(), out)) << shape;
    }
  }
}

TEST(CudaMixWrite, TokensDoNotDependOnTheBatch) {
  const auto all = Problem<float, float>({21, 4, 40}).run();
  const auto begins = [](const auto& whole, const auto& part) {
    return std::memcmp(whole.data(), part.data(), part.size() * sizeof(part[0])) == 0;
  };
  for (const int64_t tokens : {1, 8, 9}) {
    const auto few = Problem<float, float>({tokens, 4, 40}).run();
    EXPECT_TRUE(begins(all.x_out, few.x_out) && begins(all.grad_x, few.grad_x));
    EXPECT_TRUE(begins(all.grad_y, few.grad_y) && begins(all.grad_h_res, few.grad_h_res));
    EXPECT_TRUE(begins(all.grad_h_post, few.grad_h_post));
  }
}

// Where the CPU fuses multiplication and addition, as AVX2 does.
TEST(CudaMixWrite, HasTheBitsOfTheCpuKernel) {
  if (cpu::detected_isa_level() == cpu::IsaLevel::kBase) {
    GTEST_SKIP() << "this processor has no fused multiply-add";
  }
  for (const bool has_mix : {false, true}) {
    const Problem<float, float> problem({5, 4, 50, has_mix, false, false, true});
    std::vector<float> x_out(5 * 4 * 50);
    cpu::mix_write_forward(problem.forward_args(x_out.data()), hyperstreams::testing::serial);
    EXPECT_TRUE(same_bytes(problem.run().x_out, x_out));
  }
}

TEST(CudaMixWrite, RefusesDouble) {
  MixWriteArgs args = {};
  args.n_streams = 4;
  args.width = 8;
  args.dtype = DType::kFloat64;
  EXPECT_EQ(mix_write_forward(args, nullptr), Status::kUnsupportedDType);
  args.dtype = DType::kFloat32;
  args.y_dtype = DType::kFloat64;
  EXPECT_EQ(mix_write_forward(args, nullptr), Status::kUnsupportedDType);
  MixWriteBackwardArgs backward = {};
  backward.dtype = DType::kFloat64;
  EXPECT_EQ(mix_write_backward(backward, nullptr), Status::kUnsupportedDType);
}

}  // namespace
}  // namespace hyperstreams::cuda::testing
