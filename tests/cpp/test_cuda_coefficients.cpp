// The kernels of csrc/kernels/cuda/coefficients.cu and map_*.cu, emulated, against the definition
// and, for gradients, against the CPU kernel in double.
#include <gtest/gtest.h>

#include "coefficient_cases.h"
#include "cuda_testing.h"
#include "hyperstreams/plan.h"

namespace hyperstreams::cuda::testing {
namespace {

namespace cases = hyperstreams::testing;

/// Runs the kernels on the problem's inputs into its outputs; returns all results.
std::vector<float> run(cases::Problem<float>& p, bool has_rms = true) {
  const CoefficientsPlan plan = plan_coefficients(p.tokens, p.s);
  Guarded<float> forward_scratch(plan.forward.scratch), scratch(plan.backward.scratch);
  Guarded<double> partials(plan.partials * 2 * p.logit_count);
  const RowsView logits{p.logits.data(), p.logit_stride};
  const RowsView rms = has_rms ? RowsView{p.inv_rms.data(), p.rms_stride} : RowsView{nullptr, 0};
  const RowsView of_pre{p.grad.data(), p.grad_stride}, of_post{p.grad.data() + p.n, p.grad_stride};
  const RowsView of_res{p.grad.data() + 2 * p.n, p.grad_stride};
  EXPECT_EQ(coefficients_forward(
                {p.tokens, p.dtype, p.s, logits, rms, p.alpha.data(), p.bias.data(), p.h_pre.data(),
                 p.h_post.data(), p.h_res.data(), forward_scratch.data()},
                nullptr),
            Status::kOk);
  EXPECT_EQ(coefficients_backward(
                {p.tokens, p.dtype, p.s, of_pre, of_post, of_res, logits, rms, p.alpha.data(),
                 p.bias.data(), p.grad_logits.data(), has_rms ? p.grad_inv_rms.data() : nullptr,
                 p.grad_alpha.data(), p.grad_bias.data(), partials.data(), scratch.data()},
                nullptr),
            Status::kOk);
  EXPECT_TRUE(p.h_pre.intact() && p.h_post.intact() && p.h_res.intact() && p.grad_logits.intact() &&
              p.grad_inv_rms.intact() && p.grad_alpha.intact() && p.grad_bias.intact() &&
              partials.intact() && forward_scratch.intact() && scratch.intact());
  return p.results();
}

void check_case(const CoefficientSettings& s, int64_t tokens, double scale = 2) {
  SCOPED_TRACE(::testing::Message() << "T=" << tokens << " " << cases::name(s));
  cases::Problem<float> p(s, tokens, scale);
  emulation::set_order(emulation::Order::kDescending);
  const std::vector<float> other = run(p);
  emulation::set_order(emulation::Order::kAscending);
  const std::vector<float> out = run(p);
  EXPECT_TRUE(same_bytes(out, other)) << "depends on the order of threads";
  cases::check_forward(p, 1e-4);
  const cpu::IsaLevel base = cpu::IsaLevel::kBase;
  const hyperstreams::testing::AtIsaLevel at(base);
  cases::Problem<double> exact(s, tokens, scale);
  exact.run(hyperstreams::testing::serial);
  const std::vector<double> expected = exact.results();
  ASSERT_EQ(out.size(), expected.size());
  for (size_t k = 0; k < out.size(); ++k) {
    ASSERT_NEAR(out[k], expected[k], 2e-4 * (1 + std::abs(expected[k]))) << k;
  }
}

TEST(CudaCoefficients, EqualTheDefinitionForEveryMap) {
  // All up to the last n that has kernels of its own, and a few that have not.
  for (const int n : {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, kMaxStreams}) {
    const bool every = n == 2 || n == 4;
    const std::vector<int> variants = every ? std::vector<int>{0, 1, 2} : std::vector<int>{n % 3};
    for (const CoefficientSettings& s : cases::all_settings({n}, variants)) check_case(s, 2);
  }
}

TEST(CudaCoefficients, EqualTheDefinitionForOtherFactorisations) {
  const std::pair<int, MapSettings> factorisations[] = {
      {4, {{0, 4}, {}}}, {8, {{1, 2, 2, 2}, {}}}, {8, {{0, 2, 4}, {}}}, {16, {{1, 4, 4}, {}}}};
  for (const auto& [n, factors] : factorisations) {
    check_case(cases::settings(n, MapKind::kKronecker, factors, 1), 3);
  }
}

// A warp that is not full; several blocks.
TEST(CudaCoefficients, SumsOverEverySplit) {
  for (const int n : {1, 2, 3, 4, 5, 8}) {
    const std::vector<int> variants = n == 4 ? std::vector<int>{0, 1, 2} : std::vector<int>{n % 3};
    for (const CoefficientSettings& s : cases::all_settings({n}, variants)) {
      check_case(s, 0);
      check_case(s, n == 4 ? 70 : 37);
    }
  }
}

// What Sinkhorn keeps is in shared memory, or in scratch.
TEST(CudaCoefficients, RoundsBeyondSharedMemory) {
  for (const int n : {2, 4, 5, 8}) {
    // 44: with a block's own memory a little above what it has without asking.
    for (const int rounds : {3, 44, 400}) {
      const CoefficientSettings s =
          cases::settings(n, MapKind::kSinkhorn, {{rounds, 0, 0, 1}, {0, 1}}, 0);
      const bool in_scratch = plan_coefficients(37, s).backward.scratch > 0;
      EXPECT_TRUE(rounds == 44 || in_scratch == (rounds == 400));
      check_case(s, 37);
    }
  }
}

// More warps of tokens than rows of partials.
TEST(CudaCoefficients, BlocksWalk) {
  const CoefficientSettings s = cases::all_settings({1}).front();
  const int64_t tokens = 33000;
  ASSERT_LT(plan_coefficients(tokens, s).backward.launch.grid_x * 32, tokens);
  cases::Problem<float> p(s, tokens);
  run(p);
  cases::Problem<double> exact(s, tokens);
  exact.run(hyperstreams::testing::serial);
  for (int k = 0; k < p.parameters; ++k) EXPECT_NEAR(p.grad_alpha[k], exact.grad_alpha[k], 1e-2);
  for (int k = 0; k < p.logit_count; ++k) EXPECT_NEAR(p.grad_bias[k], exact.grad_bias[k], 1e-2);
}

// Logits at which the linear scalings of sinkhorn leave their range.
TEST(CudaCoefficients, LargeLogitsTakeTheLogDomain) {
  for (const CoefficientSettings& s : cases::all_settings({1, 2, 3, 4, 6, 8, 16})) {
    if (s.map != MapKind::kSinkhorn || s.mix.kind != ActivationKind::kNone) continue;
    SCOPED_TRACE(cases::name(s));
    cases::Problem<float> p(s, 5, 300), on_cpu(s, 5, 300);
    const std::vector<float> out = run(p);
    cases::check_forward(p, 3e-3);
    on_cpu.run(hyperstreams::testing::serial);
    const std::vector<float> expected = on_cpu.results();
    for (size_t k = 0; k < out.size(); ++k) {
      ASSERT_TRUE(std::isfinite(out[k])) << k;
      ASSERT_NEAR(out[k], expected[k], 2e-3 * (1 + std::abs(expected[k]))) << k;
    }
  }
}

double error_norm(const std::vector<float>& got, const std::vector<double>& want) {
  double sum = 0;
  for (size_t k = 0; k < want.size(); ++k) sum += (got[k] - want[k]) * (got[k] - want[k]);
  return std::sqrt(sum);
}

// Other lanes and other divisions than the CPU's, but as few roundings.
TEST(CudaCoefficients, SinkhornIsAsExactAsOnTheCpu) {
  const MapSettings variants[] = {{{20, 0, 0, 0}, {0, 1}},
                                  {{20, 0, 0, 1}, {1e-6, 1}},
                                  {{20, 1, 1, 0}, {1e-6, 1}},
                                  {{7, 0, 1, 1}, {1e-2, 0.3}}};
  for (const int n : {2, 3, 4}) {
    for (const MapSettings& variant : variants) {
      for (const double scale : {0.5, 3.0, 12.0}) {
        const CoefficientSettings s = cases::settings(n, MapKind::kSinkhorn, variant, 0);
        SCOPED_TRACE(::testing::Message() << cases::name(s) << " scale " << scale);
        cases::Problem<float> p(s, 96, scale), on_cpu(s, 96, scale);
        cases::Problem<double> exact(s, 96, scale);
        run(p);
        on_cpu.run(hyperstreams::testing::serial);
        exact.run(hyperstreams::testing::serial);
        const auto check = [&](auto member, const char* what) {
          const std::vector<double> want = (exact.*member.second).copy();
          double norm = 0;
          for (const double v : want) norm += v * v;
          const double bound =
              1.5 * error_norm((on_cpu.*member.first).copy(), want) + 5e-8 * std::sqrt(norm);
          EXPECT_LE(error_norm((p.*member.first).copy(), want), bound) << what;
        };
        using F = cases::Problem<float>;
        using D = cases::Problem<double>;
        check(std::pair{&F::h_res, &D::h_res}, "h_res");
        check(std::pair{&F::grad_logits, &D::grad_logits}, "grad_logits");
        check(std::pair{&F::grad_inv_rms, &D::grad_inv_rms}, "grad_inv_rms");
      }
    }
  }
}

TEST(CudaCoefficients, InverseRmsMayBeAbsent) {
  for (const CoefficientSettings& s : cases::all_settings({3, 8})) {
    cases::Problem<float> with(s, 3), without(s, 3);
    for (float& v : with.inv_rms) v = 1;
    run(with);
    run(without, false);
    EXPECT_TRUE(same_bytes(with.h_pre.copy(), without.h_pre.copy()));
    EXPECT_TRUE(same_bytes(with.h_res.copy(), without.h_res.copy()));
    EXPECT_TRUE(same_bytes(with.grad_logits.copy(), without.grad_logits.copy()));
    EXPECT_TRUE(same_bytes(with.grad_bias.copy(), without.grad_bias.copy()));
  }
}

TEST(CudaCoefficients, TokensDoNotDependOnTheBatch) {
  for (const CoefficientSettings& s : cases::all_settings({4, 6, 8})) {
    cases::Problem<float> many(s, 41), few(s, 3);
    run(many);
    run(few);
    const auto begins = [](const std::vector<float>& whole, const std::vector<float>& part) {
      return part.empty() ||
             std::memcmp(whole.data(), part.data(), part.size() * sizeof(float)) == 0;
    };
    EXPECT_TRUE(begins(many.h_pre.copy(), few.h_pre.copy()));
    EXPECT_TRUE(begins(many.h_res.copy(), few.h_res.copy()));
    EXPECT_TRUE(begins(many.grad_logits.copy(), few.grad_logits.copy()));
  }
}

TEST(CudaCoefficients, RefusesDouble) {
  CoefficientsArgs args = {};
  args.dtype = DType::kFloat64;
  EXPECT_EQ(coefficients_forward(args, nullptr), Status::kUnsupportedDType);
  CoefficientsBackwardArgs backward = {};
  backward.dtype = DType::kFloat64;
  EXPECT_EQ(coefficients_backward(backward, nullptr), Status::kUnsupportedDType);
}

}  // namespace
}  // namespace hyperstreams::cuda::testing
