// Calls of coefficients with every map, shared by the tests of both back ends.
#pragma once

#include <string>

#include "hyperstreams/coefficients.h"
#include "kernel_testing.h"
#include "mixer_definitions.h"

namespace hyperstreams::testing {

using Kind = ActivationKind;

/// Three sets of activations; the mixer's logits in two groups where there are two.
inline CoefficientSettings settings(int n, MapKind map, const MapSettings& map_settings,
                                    int variant) {
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

/// Factors of 2 for 2, 4 and 16; for other n from 5 down to 2, none where that is no factorisation.
inline MapSettings kronecker(int n, bool source_rows) {
  MapSettings s = {{source_rows}, {}};
  int k = 1;
  for (int factor = n == 4 || n == 16 ? 2 : 5; factor >= 2; --factor) {
    for (; n % factor == 0 && k < 5; n /= factor) s.ints[k++] = factor;
  }
  return s;
}

/// Every map that exists for n, in every variant.
inline std::vector<CoefficientSettings> all_settings(const std::vector<int>& n_streams = {1, 2, 3,
                                                                                          4, 5, 8,
                                                                                          16},
                                                     const std::vector<int>& variants = {0, 1, 2}) {
  const MapSettings exp_start = {{20, 0, 0, 0}, {0, 1}};
  const MapSettings softmax_start = {{6, 1, 1, 1}, {1e-6, 0.7}};
  const MapSettings with_eps = {{2, 0, 1, 0}, {1e-3, 1}};
  std::vector<CoefficientSettings> all;
  for (const int n : n_streams) {
    for (const int variant : variants) {
      all.push_back(settings(n, MapKind::kIdentity, {}, variant));
      all.push_back(settings(n, MapKind::kFree, {}, variant));
      all.push_back(settings(n, MapKind::kSinkhorn, exp_start, variant));
      all.push_back(settings(n, MapKind::kSinkhorn, softmax_start, variant));
      all.push_back(settings(n, MapKind::kSinkhorn, with_eps, variant));
      if (n <= 5) all.push_back(settings(n, MapKind::kPermutation, {{variant == 1}, {}}, variant));
      if (n <= 4) all.push_back(settings(n, MapKind::kSpectral, {{}, {1.0, 0.7}}, variant));
      all.push_back(settings(n, MapKind::kCirculant, {{variant == 1}, {0.25}}, variant));
      const MapSettings factors = kronecker(n, variant == 1);
      if (mix_logit_count(MapKind::kKronecker, factors, n) >= 0) {
        all.push_back(settings(n, MapKind::kKronecker, factors, variant));
      }
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
         partials.data(), nullptr, known ? RowsView{h_pre.data(), n} : none,
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

inline std::string name(const CoefficientSettings& s) {
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

}  // namespace hyperstreams::testing
