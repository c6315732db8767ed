// The kernels of csrc/kernels/cuda/project*.cu, emulated, against plain loops in double.
#include <gtest/gtest.h>

#include <cmath>

#include "cuda_testing.h"
#include "kernels/cuda/project_plan.h"

namespace hyperstreams::cuda::testing {
namespace {

constexpr double kEps = 1e-2;

struct Case {
  int64_t tokens;
  int n_streams;
  int64_t width, n_logits;
  bool weighted = true;
  EpsPosition position = EpsPosition::kInside;
  // Elements by which buffers are off a 16-byte boundary, and by which rows of X are wider.
  int64_t offset = 0, padding = 0;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << "T=" << c.tokens << " n=" << c.n_streams << " C=" << c.width << " K=" << c.n_logits
             << " weighted=" << c.weighted << " eps " << static_cast<int>(c.position)
             << " offset=" << c.offset << " padding=" << c.padding;
}

double inverse_rms(double mean_square, EpsPosition position) {
  if (position == EpsPosition::kInside) return 1 / std::sqrt(mean_square + kEps);
  if (position == EpsPosition::kOutside) return 1 / (std::sqrt(mean_square) + kEps);
  return 1 / std::max(std::sqrt(mean_square), kEps);
}

/// d inverse_rms / d mean_square.
double inverse_rms_slope(double mean_square, EpsPosition position) {
  const double rms = std::sqrt(mean_square), inv = inverse_rms(mean_square, position);
  if (position == EpsPosition::kOutside) return -inv * inv / (2 * rms);
  if (position == EpsPosition::kFloor && rms <= kEps) return 0;
  return -inv * inv * inv / 2;
}

struct Outputs {
  std::vector<float> logits, inv_rms;
};

bool same_bits(const Outputs& a, const Outputs& b) {
  return same_bytes(a.logits, b.logits) && same_bytes(a.inv_rms, b.inv_rms);
}

template <class S>
struct Gradients {
  std::vector<S> x;
  std::vector<float> phi, norm_weight;
};

template <class S>
bool same_bits(const Gradients<S>& a, const Gradients<S>& b) {
  return same_bytes(a.x, b.x) && same_bytes(a.phi, b.phi) &&
         same_bytes(a.norm_weight, b.norm_weight);
}

template <class S>
class Problem {
 public:
  explicit Problem(const Case& c)
      : c_(c),
        shape_{c.tokens, c.n_streams, c.width, c.n_logits, kDType<S>},
        x_(c.tokens, c.n_streams, c.width, 1, c.offset, c.padding),
        phi_(c.n_logits, 1, shape_.features(), 2, c.offset),
        norm_(1, 1, shape_.features(), 3, c.offset),
        grad_logits_(random_values<float>(c.tokens * c.n_logits, 4)),
        grad_inv_rms_(random_values<float>(c.tokens, 5)) {
    for (int64_t t = 0; t < c.tokens; ++t) {
      inv_rms_.push_back(static_cast<float>(inverse_rms(mean_square(t), c.position)));
    }
  }

  const void* norm() const { return c_.weighted ? norm_.rows().data : nullptr; }

  ProjectArgs args(float* logits, float* inv_rms, float* workspace) const {
    return {shape_,      x_.streams(), phi_.rows().data, norm(),   kEps,
            c_.position, logits,       inv_rms,          workspace};
  }

  Outputs run() const {
    return run([&](const ProjectArgs& a) { return project_forward(a, nullptr); },
               plan_project(shape_, 1).workspace);
  }

  Outputs run(ProjectSplit split) const {
    const ProjectPlan plan = plan_project(shape_, c_.offset + c_.padding > 0 ? 4 : 16, split);
    return run([&](const ProjectArgs& a) { return project_forward(a, plan, nullptr); },
               plan.workspace);
  }

  template <class Launch>
  Outputs run(const Launch& launch, int64_t scratch) const {
    Output<float> logits(c_.tokens * c_.n_logits, c_.offset), inv_rms(c_.tokens, c_.offset);
    Guarded<float> workspace(scratch);
    EXPECT_EQ(launch(args(logits.data(), inv_rms.data(), workspace.data())), Status::kOk);
    EXPECT_TRUE(logits.intact() && inv_rms.intact() && workspace.intact());
    return {logits.values(), inv_rms.values()};
  }

  Gradients<S> run_backward() const {
    const int64_t features = shape_.features();
    Output<S> grad_x(c_.tokens * features, c_.offset);
    Guarded<float> grad_phi(c_.n_logits * features), grad_norm(c_.weighted ? features : 0);
    Guarded<float> workspace(plan_project_backward(shape_, 1).workspace);
    EXPECT_EQ(project_backward(
                  {shape_, x_.streams(), phi_.rows().data, norm(), inv_rms_.data(),
                   grad_logits_.data(), grad_inv_rms_.data(), kEps, c_.position, grad_x.data(),
                   grad_phi.data(), c_.weighted ? grad_norm.data() : nullptr, workspace.data()},
                  nullptr),
              Status::kOk);
    EXPECT_TRUE(grad_x.intact() && grad_phi.intact() && grad_norm.intact() && workspace.intact());
    return {grad_x.values(), grad_phi.copy(), grad_norm.copy()};
  }

  double mean_square(int64_t t) const {
    double square = 0;
    for (int64_t d = 0; d < shape_.features(); ++d) square += v(t, d) * v(t, d);
    return square / static_cast<double>(shape_.features());
  }
  double v(int64_t t, int64_t d) const {
    return x_.at(t, static_cast<int>(d / c_.width), d % c_.width);
  }
  double weight(int64_t k, int64_t d) const {
    return double{phi_.at(k, 0, d)} * (c_.weighted ? norm_.at(0, 0, d) : 1.0f);
  }

  /// Bounds relative to the root of the sum of squares of the products.
  void check(const Outputs& out) const {
    for (int64_t t = 0; t < c_.tokens; ++t) {
      const double expected = inverse_rms(mean_square(t), c_.position);
      EXPECT_NEAR(out.inv_rms[t], expected, expected * 1e-6);
      for (int64_t k = 0; k < c_.n_logits; ++k) {
        double logit = 0, scale = 0;
        for (int64_t d = 0; d < shape_.features(); ++d) {
          const double product = v(t, d) * weight(k, d);
          logit += product;
          scale += product * product;
        }
        EXPECT_NEAR(out.logits[t * c_.n_logits + k], logit, std::sqrt(scale) * 2e-6);
      }
    }
  }

  /// Bounds as above, and one rounding to S.
  void check(const Gradients<S>& out) const {
    const int64_t features = shape_.features();
    std::vector<double> factor;
    for (int64_t t = 0; t < c_.tokens; ++t) {
      const double slope = inverse_rms_slope(mean_square(t), c_.position);
      factor.push_back(grad_inv_rms_[t] * slope * 2 / static_cast<double>(features));
    }
    for (int64_t d = 0; d < features; ++d) {
      std::vector<double> grad_weight(c_.n_logits, 0), scale(c_.n_logits, 0);
      for (int64_t t = 0; t < c_.tokens; ++t) {
        double grad = factor[t] * v(t, d), grad_scale = grad * grad;
        for (int64_t k = 0; k < c_.n_logits; ++k) {
          const double g = grad_logits_[t * c_.n_logits + k], product = g * weight(k, d);
          grad += product;
          grad_scale += product * product;
          grad_weight[k] += g * v(t, d);
          scale[k] += g * v(t, d) * g * v(t, d);
        }
        const double pieces = sizeof(S) == 2 ? 2e-5 : 2e-6;
        EXPECT_NEAR(to_float(out.x[t * features + d]), grad,
                    std::abs(grad) * kHalfUlp<S> + std::sqrt(grad_scale) * pieces + 1e-7);
      }
      const double norm_weight = c_.weighted ? norm_.at(0, 0, d) : 1;
      double grad_norm = 0, norm_scale = 0;
      for (int64_t k = 0; k < c_.n_logits; ++k) {
        EXPECT_NEAR(out.phi[k * features + d], grad_weight[k] * norm_weight,
                    std::sqrt(scale[k]) * 2e-6);
        grad_norm += grad_weight[k] * phi_.at(k, 0, d);
        norm_scale += scale[k] * phi_.at(k, 0, d) * phi_.at(k, 0, d);
      }
      if (c_.weighted) {
        EXPECT_NEAR(out.norm_weight[d], grad_norm, std::sqrt(norm_scale) * 2e-6);
      }
    }
  }

 private:
  Case c_;
  ProjectShape shape_;
  Operand<S> x_;
  Operand<float> phi_, norm_;
  std::vector<float> grad_logits_, grad_inv_rms_, inv_rms_;
};

template <class S>
void check_case(const Case& c) {
  SCOPED_TRACE(::testing::Message() << c << " element bytes=" << sizeof(S));
  const Problem<S> problem(c);
  problem.check(run_in_both_orders([&] { return problem.run(); }));
  problem.check(run_in_both_orders([&] { return problem.run_backward(); }));
}

TEST(CudaProject, EqualsPlainLoops) {
  for (int n = 1; n <= kMaxStreams; ++n) {
    check_case<float>({1 + n % 3, n, 40, n + 1});
    check_case<BFloat16>({3, n, 11, 24, n % 2 == 0});
    check_case<Float16>({1, n, 8, n + 2, n % 2 == 1});
  }
  check_case<float>({17, 4, 40, 24});
  check_case<BFloat16>({33, 4, 37, 32});
  check_case<Float16>({18, 3, 72, 15});
}

TEST(CudaProject, EveryNumberOfLogits) {
  for (int64_t n_logits = 1; n_logits <= 40; ++n_logits) {
    check_case<BFloat16>({2, 1, 8, n_logits});
    check_case<float>({2, 1, 9, n_logits});
  }
  check_case<Float16>({3, 5, 16, 130});
  check_case<float>({3, 5, 11, 70});
}

TEST(CudaProject, EveryEpsPosition) {
  for (const auto position : {EpsPosition::kInside, EpsPosition::kOutside, EpsPosition::kFloor}) {
    check_case<float>({5, 4, 16, 3, true, position});
    check_case<BFloat16>({5, 4, 16, 3, false, position});
  }
}

// One token more than a block takes; several pieces in every segment, the last ones shorter.
template <class S>
void check_splits(const Case& c) {
  SCOPED_TRACE(::testing::Message() << c << " element bytes=" << sizeof(S));
  const Problem<S> problem(c);
  const Outputs direct = problem.run(ProjectSplit::kDirect);
  problem.check(direct);
  for (const auto split : {ProjectSplit::kPieces, ProjectSplit::kSegments, ProjectSplit::kWhole}) {
    const Outputs out = run_in_both_orders([&] { return problem.run(split); });
    EXPECT_TRUE(same_bits(out, direct)) << "split " << static_cast<int>(split);
  }
}

TEST(CudaProject, SameBitsHoweverSplit) {
  check_splits<BFloat16>({129, 2, 8, 3});
  check_splits<BFloat16>({3, 4, 616, 12});
  check_splits<float>({2, 3, 712, 7});
  check_splits<float>({65, 1, 9, 40});
  check_splits<Float16>({2, 6, 333, 17});
}

TEST(CudaProject, ChosenSplitsAgree) {
  const Outputs many = Problem<BFloat16>({2050, 1, 16, 3}).run();
  for (const int64_t tokens : {1, 16, 17, 512, 513, 2048, 2049}) {
    const Problem<BFloat16> problem({tokens, 1, 16, 3});
    const Outputs few = problem.run();
    EXPECT_EQ(std::memcmp(few.logits.data(), many.logits.data(), tokens * 3 * 4), 0) << tokens;
    EXPECT_EQ(std::memcmp(few.inv_rms.data(), many.inv_rms.data(), tokens * 4), 0) << tokens;
  }
}

TEST(CudaProject, SameBitsAtAnyAlignmentAndStride) {
  for (const auto split : {ProjectSplit::kDirect, ProjectSplit::kSegments}) {
    const Outputs out = Problem<BFloat16>({5, 4, 40, 9}).run(split);
    for (const auto& [offset, padding] : {std::pair{1, 0}, {0, 1}, {3, 5}}) {
      const Case shape{5, 4, 40, 9, true, EpsPosition::kInside, offset, padding};
      EXPECT_TRUE(same_bits(Problem<BFloat16>(shape).run(split), out)) << shape;
    }
  }
  // Whole vectors in wider rows.
  const Outputs out = Problem<float>({5, 4, 40, 9}).run();
  const Case wider{5, 4, 40, 9, true, EpsPosition::kInside, 8, 8};
  EXPECT_TRUE(same_bits(Problem<float>(wider).run(), out));
}

// Several parts; one token more than a step; more columns than a block has.
TEST(CudaProject, BackwardOverEverySplit) {
  ASSERT_EQ(plan_project_backward({300, 1, 8, 3, DType::kBFloat16}, 16).parts, 5);
  check_case<BFloat16>({300, 1, 8, 3});
  check_case<float>({129, 2, 9, 24, false});
  check_case<Float16>({17, 3, 152, 12});
  check_case<float>({65, 5, 36, 33});
  check_case<BFloat16>({65, 2, 35, 33});
}

TEST(CudaProject, BackwardHasTheSameBitsAtAnyAlignmentAndStride) {
  for (const int64_t n_logits : {9, 40}) {
    const Gradients<BFloat16> out = Problem<BFloat16>({5, 4, 40, n_logits}).run_backward();
    for (const auto& [offset, padding] : {std::pair{1, 0}, {0, 1}, {3, 5}, {8, 8}}) {
      const Case shape{5, 4, 40, n_logits, true, EpsPosition::kInside, offset, padding};
      EXPECT_TRUE(same_bits(Problem<BFloat16>(shape).run_backward(), out)) << shape;
    }
  }
}

TEST(CudaProject, GradientsOfTokensDoNotDependOnTheBatch) {
  const Gradients<float> many = Problem<float>({35, 2, 8, 5}).run_backward();
  for (const int64_t tokens : {1, 16, 17, 32}) {
    const Gradients<float> few = Problem<float>({tokens, 2, 8, 5}).run_backward();
    EXPECT_EQ(std::memcmp(few.x.data(), many.x.data(), few.x.size() * 4), 0) << tokens;
  }
}

TEST(CudaProject, TakesNoTokensAndRefusesDouble) {
  const Problem<float> none({0, 4, 8, 3});
  none.run();
  none.check(none.run_backward());  // zeros
  EXPECT_EQ(project_forward({{0, 4, 8, 3, DType::kFloat64},
                             {},
                             nullptr,
                             nullptr,
                             kEps,
                             EpsPosition::kInside,
                             nullptr,
                             nullptr,
                             nullptr},
                            nullptr),
            Status::kUnsupportedDType);
  ProjectBackwardArgs args{};
  args.shape = {0, 4, 8, 3, DType::kFloat64};
  EXPECT_EQ(project_backward(args, nullptr), Status::kUnsupportedDType);
}

}  // namespace
}  // namespace hyperstreams::cuda::testing
