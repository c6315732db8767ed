#include <gtest/gtest.h>

#include "hyperstreams/coefficients.h"
#include "kernel_testing.h"
#include "mixer_definitions.h"

namespace hyperstreams::testing {
namespace {

using Kind = ActivationKind;

/// Three sets of activations; the mixer's logits in two groups where there are two.
CoefficientSettings settings(int n, MapKind map, const MapSettings& map_settings, int variant) {
  CoefficientSettings s = {};
  s.n_streams = n;
  s.map = map;
  s.map_settings = map_settings;
  const int mix = mix_logit_count(map, map_settings, n);
  s.per_stream = variant == 2 && mix == n * n;
  s.mix_groups = mix == 0 ? 0 : mix == 1 ? 1 : 2;
  s.mix_group_sizes[0] = mix == 1 ? 1 : mix / 2;
  s.mix_group_sizes[1] = mix - s.mix_group_sizes[0];
  if (variant == 0) {
    s.read = {Kind::kSigmoid, false, 1, 0};
    s.write = {Kind::kSigmoid, false, 2, 0};
    s.mix = {Kind::kNone, false, 1, 0};
  } else if (variant == 1) {
    s.read = {Kind::kSigmoid, true, 1.5, -0.25};
    s.write = {Kind::kTanh, false, 2, 0.5};
    s.mix = {Kind::kTanh, false, 3, 0.125};
  } else {
    s.read = {Kind::kTanh, true, 1, 0};
    s.write = {Kind::kNone, true, 0.5, 1};
    s.mix = {Kind::kTanh, true, 2, -0.5};
  }
  return s;
}

/// Factors of 2, but 4 x 2 for n = 8; n itself when it is odd.
MapSettings kronecker(int n, bool source_rows) {
  if (n == 8) return {{source_rows, 4, 2}, {}};
  if (n % 2 == 1) return {{source_rows, n == 1 ? 0 : n}, {}};
  MapSettings s = {{source_rows}, {}};
  for (int k = 1; n > 1; n /= 2) s.ints[k++] = 2;
  return s;
}

std::vector<CoefficientSettings> all_settings() {
  const MapSettings exp_start = {{20, 0, 0, 0}, {0, 1}};
  const MapSettings softmax_start = {{6, 1, 1, 1}, {1e-6, 0.7}};
  const MapSettings with_eps = {{2, 0, 1, 0}, {1e-3, 1}};
  std::vector<CoefficientSettings> all;
  for (const int n : {1, 2, 3, 4, 5, 8, 16}) {
    for (int variant = 0; variant < 3; ++variant) {
      all.push_back(settings(n, MapKind::kIdentity, {}, variant));
      all.push_back(settings(n, MapKind::kFree, {}, variant));
      all.push_back(settings(n, MapKind::kSinkhorn, exp_start, variant));
      all.push_back(settings(n, MapKind::kSinkhorn, softmax_start, variant));
      all.push_back(settings(n, MapKind::kSinkhorn, with_eps, variant));
      if (n <= 5) all.push_back(settings(n, MapKind::kPermutation, {{variant == 1}, {}}, variant));
      if (n <= 4) all.push_back(settings(n, MapKind::kSpectral, {{}, {1.0, 0.7}}, variant));
      all.push_back(settings(n, MapKind::kCirculant, {{variant == 1}, {0.25}}, variant));
      all.push_back(settings(n, MapKind::kKronecker, kronecker(n, variant == 1), variant));
    }
  }
  return all;
}

/// Inputs, outputs and gradients of one call. Input rows have gaps between them.
template <class T>
struct Problem {
  CoefficientSettings s;
  int64_t tokens;
  int n, logit_count, rms_count, parameters, h_res_count;
  int64_t logit_stride, rms_stride, grad_stride;
  std::vector<T> logits, inv_rms, alpha, bias, grad;
  Guarded<T> h_pre, h_post, h_res, grad_logits, grad_inv_rms, grad_alpha, grad_bias;
  Guarded<double> partials;

  Problem(const CoefficientSettings& settings, int64_t count, double scale = 2)
      : s(settings),
        tokens(count),
        n(s.n_streams),
        logit_count(2 * n + mix_logit_count(s.map, s.map_settings, n)),
        rms_count(s.per_stream ? n : 1),
        parameters(2 + s.mix_groups),
        h_res_count(s.map == MapKind::kIdentity ? 0 : n * n),
        logit_stride(logit_count + 3),
        rms_stride(rms_count + 2),
        grad_stride(2 * n + h_res_count + 1),
        logits(random_values<T>(tokens * logit_stride + 1, 1)),
        inv_rms(random_values<T>(tokens * rms_stride + 1, 2)),
        alpha(random_values<T>(parameters, 3)),
        bias(random_values<T>(logit_count, 4)),
        grad(random_values<T>(tokens * grad_stride + 1, 5)),
        h_pre(tokens * n),
        h_post(tokens * n),
        h_res(tokens * h_res_count),
        grad_logits(tokens * logit_count),
        grad_inv_rms(tokens * rms_count),
        grad_alpha(parameters),
        grad_bias(logit_count),
        partials(token_partitions(tokens) * (parameters + logit_count)) {
    for (T& v : logits) v *= static_cast<T>(scale);
    for (T& v : inv_rms) v = T(1) + v / 2;
  }

  static constexpr DType dtype = sizeof(T) == 4 ? DType::kFloat32 : DType::kFloat64;

  /// known: the backward is told the forward's outputs.
  void run(ParallelFor parallel_for, bool known = false) {
    const RowsView z{logits.data(), logit_stride}, rms{inv_rms.data(), rms_stride};
    cpu::coefficients_forward({tokens, dtype, s, z, rms, alpha.data(), bias.data(), h_pre.data(),
                               h_post.data(), h_res.data()},
                              parallel_for);
    const RowsView of_pre{grad.data(), grad_stride}, of_post{grad.data() + n, grad_stride};
    const RowsView of_res{grad.data() + 2 * n, grad_stride};
    const RowsView none{nullptr, 0};
    cpu::coefficients_backward(
        {tokens, dtype, s, of_pre, of_post, of_res, z, rms, alpha.data(), bias.data(),
         grad_logits.data(), grad_inv_rms.data(), grad_alpha.data(), grad_bias.data(),
         partials.data(), known ? RowsView{h_pre.data(), n} : none,
         known ? RowsView{h_post.data(), n} : none},
        parallel_for);
    EXPECT_TRUE(h_pre.intact() && h_post.intact() && h_res.intact() && grad_logits.intact() &&
                grad_inv_rms.intact() && grad_alpha.intact() && grad_bias.intact() &&
                partials.intact());
  }

  /// Everything that was computed, in one row.
  std::vector<T> results() {
    std::vector<T> all;
    for (Guarded<T>* part :
         {&h_pre, &h_post, &h_res, &grad_logits, &grad_inv_rms, &grad_alpha, &grad_bias}) {
      const std::vector<T> values = part->copy();
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  }

  // Token t's own arguments of the definition.
  Values row(const std::vector<T>& rows, int64_t stride, int64_t t, int64_t size) const {
    return Values(rows.begin() + t * stride, rows.begin() + t * stride + size);
  }
  Values logits_of(int64_t t) const { return row(logits, logit_stride, t, logit_count); }
  Values rms_of(int64_t t) const { return row(inv_rms, rms_stride, t, rms_count); }
  Values grad_of(int64_t t) const { return row(grad, grad_stride, t, 2 * n + h_res_count); }
  Values alpha_values() const { return Values(alpha.begin(), alpha.end()); }
  Values bias_values() const { return Values(bias.begin(), bias.end()); }
};

std::string name(const CoefficientSettings& s) {
  return "n=" + std::to_string(s.n_streams) + " map=" + std::to_string(static_cast<int>(s.map)) +
         " per_stream=" + std::to_string(s.per_stream) +
         " read=" + std::to_string(static_cast<int>(s.read.kind)) +
         " first map integer=" + std::to_string(s.map_settings.ints[0]);
}

template <class T>
void check_forward(Problem<T>& p, double tolerance) {
  for (int64_t t = 0; t < p.tokens; ++t) {
    const Values h =
        define_coefficients(p.s, p.logits_of(t), p.rms_of(t), p.alpha_values(), p.bias_values());
    for (int k = 0; k < static_cast<int>(h.size()); ++k) {
      const double actual = k < p.n       ? p.h_pre[t * p.n + k]
                            : k < 2 * p.n ? p.h_post[t * p.n + k - p.n]
                                          : p.h_res[t * p.h_res_count + k - 2 * p.n];
      ASSERT_NEAR(actual, h[k], tolerance) << "token " << t << " element " << k;
    }
  }
}

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
