#include <gtest/gtest.h>

#include "coefficient_cases.h"

namespace hyperstreams::testing {
namespace {

void check_gradients(Problem<double>& p) {
  const Values alpha = p.alpha_values(), bias = p.bias_values();
  Values of_alpha(alpha.size(), 0.0), of_bias(bias.size(), 0.0);
  for (int64_t t = 0; t < p.tokens; ++t) {
    const Values logits = p.logits_of(t), rms = p.rms_of(t), weight = p.grad_of(t);
    const auto add = [](Values& sum, const Values& values) {
      for (size_t k = 0; k < sum.size(); ++k) sum[k] += values[k];
    };
    const auto of_logits = differentiate(
        [&](const Values& x) { return define_coefficients(p.s, x, rms, alpha, bias); }, logits,
        weight);
    const auto of_rms = differentiate(
        [&](const Values& x) { return define_coefficients(p.s, logits, x, alpha, bias); }, rms,
        weight);
    add(of_alpha,
        differentiate(
            [&](const Values& x) { return define_coefficients(p.s, logits, rms, x, bias); }, alpha,
            weight));
    add(of_bias,
        differentiate(
            [&](const Values& x) { return define_coefficients(p.s, logits, rms, alpha, x); }, bias,
            weight));
    for (int k = 0; k < p.logit_count; ++k) {
      ASSERT_NEAR(p.grad_logits[t * p.logit_count + k], of_logits[k], 1e-7) << "logit " << k;
    }
    for (int k = 0; k < p.rms_count; ++k) {
      ASSERT_NEAR(p.grad_inv_rms[t * p.rms_count + k], of_rms[k], 1e-6) << "inv_rms " << k;
    }
  }
  for (size_t k = 0; k < alpha.size(); ++k) ASSERT_NEAR(p.grad_alpha[k], of_alpha[k], 1e-6);
  for (size_t k = 0; k < bias.size(); ++k) ASSERT_NEAR(p.grad_bias[k], of_bias[k], 1e-6);
}

TEST(Coefficients, GradientsEqualCentralDifferences) {
  for (const CoefficientSettings& s : all_settings()) {
    if (s.n_streams > 5) continue;
    SCOPED_TRACE(name(s));
    Problem<double> p(s, 3);
    p.run(serial);
    check_forward(p, 1e-12);
    check_gradients(p);
  }
}

TEST(Coefficients, EqualTheDefinitionAtEveryIsaLevel) {
  for (const CoefficientSettings& s : all_settings()) {
    for (const int64_t tokens : {0, 1, 37}) {
      Problem<double> reference(s, tokens);
      {
        const AtIsaLevel at(cpu::IsaLevel::kBase);
        reference.run(serial);
        check_forward(reference, 1e-12);
      }
      const std::vector<double> expected = reference.results();
      for (const cpu::IsaLevel level : isa_levels()) {
        SCOPED_TRACE(::testing::Message() << cpu::isa_name(level) << " " << name(s));
        const AtIsaLevel at(level);
        Problem<double> wide(s, tokens);
        wide.run(threaded);
        const std::vector<double> actual = wide.results();
        for (size_t k = 0; k < expected.size(); ++k) {
          ASSERT_NEAR(actual[k], expected[k], 1e-11) << k;
        }
        Problem<float> narrow(s, tokens);
        narrow.run(threaded);
        const std::vector<float> single = narrow.results();
        for (size_t k = 0; k < expected.size(); ++k) {
          ASSERT_NEAR(single[k], expected[k], 2e-4 * (1 + std::abs(expected[k]))) << k;
        }
      }
    }
  }
}

TEST(Coefficients, ActivationsAreAccurateOverTheirWholeRange) {
  CoefficientSettings s = {};
  s.n_streams = 1;
  s.read = {Kind::kSigmoid, false, 1, 0};
  s.write = {Kind::kTanh, false, 1, 0};
  s.map = MapKind::kIdentity;
  const int count = 40001;
  std::vector<float> logits, alpha = {1, 1}, bias = {0, 0}, h_pre(count), h_post(count);
  for (int k = 0; k < count; ++k) {
    // Dense near 0, and out to 90.
    const double u = (k - count / 2) / (count / 2.0);
    logits.insert(logits.end(), 2, static_cast<float>(90 * u * u * u));
  }
  for (const cpu::IsaLevel level : isa_levels()) {
    const AtIsaLevel at(level);
    cpu::coefficients_forward({count,
                               DType::kFloat32,
                               s,
                               {logits.data(), 2},
                               {nullptr, 0},
                               alpha.data(),
                               bias.data(),
                               h_pre.data(),
                               h_post.data(),
                               nullptr},
                              serial);
    for (int k = 0; k < count; ++k) {
      const double x = logits[2 * k], sigmoid = 1 / (1 + std::exp(-x)), tanh = std::tanh(x);
      ASSERT_NEAR(h_pre[k], sigmoid, 2.5e-7 * sigmoid + 1e-38) << x;
      ASSERT_NEAR(h_post[k], tanh, 2.5e-7 * std::abs(tanh)) << x;
    }
  }
}

TEST(Coefficients, SameBitsOnAnyThreadsAndOnAvx2AndAvx512) {
  for (const CoefficientSettings& s : all_settings()) {
    SCOPED_TRACE(name(s));
    std::vector<std::vector<float>> results;
    for (const cpu::IsaLevel level : isa_levels()) {
      if (level == cpu::IsaLevel::kBase) continue;
      const AtIsaLevel at(level);
      for (const ParallelFor parallel_for : {&serial, &threaded}) {
        Problem<float> p(s, 205);
        p.run(parallel_for);
        results.push_back(p.results());
      }
    }
    for (const auto& result : results) EXPECT_EQ(result, results.front());
  }
}

TEST(Coefficients, KnownOutputsGiveTheSameBits) {
  for (const CoefficientSettings& s : all_settings()) {
    SCOPED_TRACE(name(s));
    for (const cpu::IsaLevel level : isa_levels()) {
      const AtIsaLevel at(level);
      Problem<float> recomputed(s, 37), known(s, 37);
      recomputed.run(serial);
      known.run(serial, true);
      EXPECT_EQ(recomputed.results(), known.results());
    }
  }
}

TEST(Coefficients, ATokenDoesNotDependOnItsNeighbours) {
  for (const CoefficientSettings& s : all_settings()) {
    SCOPED_TRACE(name(s));
    for (const cpu::IsaLevel level : isa_levels()) {
      const AtIsaLevel at(level);
      // Wide logits, so that some tokens of a tile leave the range of linear scalings.
      Problem<float> all(s, 23, 150);
      all.run(serial);
      for (const int64_t first : {1, 5, 22}) {
        Problem<float> part(s, 23, 150);
        part.tokens = 23 - first;
        part.logits.erase(part.logits.begin(), part.logits.begin() + first * part.logit_stride);
        part.inv_rms.erase(part.inv_rms.begin(), part.inv_rms.begin() + first * part.rms_stride);
        part.grad.erase(part.grad.begin(), part.grad.begin() + first * part.grad_stride);
        part.run(serial);
        const auto equal = [&](Guarded<float>& a, Guarded<float>& b, int64_t row) {
          for (int64_t k = 0; k < part.tokens * row; ++k) {
            ASSERT_EQ(a[k], b[first * row + k]) << k;
            ASSERT_TRUE(std::isfinite(a[k])) << k;
          }
        };
        equal(part.h_pre, all.h_pre, s.n_streams);
        equal(part.h_res, all.h_res, all.h_res_count);
        equal(part.grad_logits, all.grad_logits, all.logit_count);
        equal(part.grad_inv_rms, all.grad_inv_rms, all.rms_count);
      }
    }
  }
}

TEST(Coefficients, NaNStaysInItsToken) {
  for (const CoefficientSettings& s : all_settings()) {
    SCOPED_TRACE(name(s));
    Problem<float> clean(s, 16), broken(s, 16);
    for (int k = 0; k < broken.logit_count; ++k) {
      broken.logits[3 * broken.logit_stride + k] = std::nanf("");
    }
    clean.run(serial);
    broken.run(serial);
    const auto compare = [](Guarded<float>& a, Guarded<float>& b, int64_t row) {
      for (int64_t k = 0; k < a.size(); ++k) {
        if (k / row == 3) {
          ASSERT_TRUE(std::isnan(b[k])) << k;
        } else {
          ASSERT_EQ(a[k], b[k]) << k;
        }
      }
    };
    compare(clean.h_pre, broken.h_pre, s.n_streams);
    if (s.map == MapKind::kFree) compare(clean.h_res, broken.h_res, clean.h_res_count);
    compare(clean.grad_inv_rms, broken.grad_inv_rms, clean.rms_count);
  }
}

TEST(Coefficients, MapsThatDoNotExistHaveNoLogits) {
  EXPECT_EQ(mix_logit_count(MapKind::kIdentity, {}, 16), 0);
  EXPECT_EQ(mix_logit_count(MapKind::kSinkhorn, {}, 16), 256);
  EXPECT_EQ(mix_logit_count(MapKind::kPermutation, {}, 5), 120);
  EXPECT_EQ(mix_logit_count(MapKind::kPermutation, {}, 6), -1);
  EXPECT_EQ(mix_logit_count(MapKind::kFree, {}, 17), -1);
  EXPECT_EQ(mix_logit_count(MapKind::kKronecker, {{0, 2, 3}, {}}, 6), 8);
  EXPECT_EQ(mix_logit_count(MapKind::kKronecker, {{0, 2, 3}, {}}, 12), -1);
  EXPECT_EQ(mix_logit_count(MapKind::kSpectral, {}, 4), 9);
  EXPECT_EQ(mix_logit_count(MapKind::kSpectral, {}, 5), -1);
  EXPECT_EQ(mix_logit_count(MapKind::kCirculant, {}, 16), 16);
}

}  // namespace
}  // namespace hyperstreams::testing
