#pragma once

#include "device_call.h"
#include "hyperstreams/coefficients.h"
#include "hyperstreams/plan.h"

namespace hyperstreams::cuda::testing {

/// Sizes of one call of coefficients.
struct CoefficientSizesOf {
  int64_t tokens;
  int n, mix, logits, rms, alphas, h_res;
  CoefficientsPlan plan;

  CoefficientSizesOf(const CoefficientSettings& s, int64_t count)
      : tokens(count),
        n(s.n_streams),
        mix(mix_logit_count(s.map, s.map_settings, n)),
        logits(2 * n + mix),
        rms(s.per_stream ? n : 1),
        alphas(2 + s.mix_groups),
        h_res(s.map == MapKind::kIdentity ? 0 : n * n),
        plan(plan_coefficients(tokens, mix_scratch_size(s.map, s.map_settings, n))) {}
};

inline Status coefficients_forward(CoefficientsArgs args, Stream) {
  if (args.dtype == DType::kFloat64) return cuda::coefficients_forward(args, nullptr);
  const CoefficientSizesOf size(args.settings, args.tokens);
  const DType type = DType::kFloat32;
  DeviceCall call;
  args.logits = call.input(args.logits, size.tokens, size.logits, type);
  args.inv_rms = call.input(args.inv_rms, size.tokens, size.rms, type);
  args.alpha = call.input(args.alpha, size.alphas, type);
  args.bias = call.input(args.bias, size.logits, type);
  args.h_pre = call.output(args.h_pre, size.tokens * size.n, type);
  args.h_post = call.output(args.h_post, size.tokens * size.n, type);
  args.h_res = call.output(args.h_res, size.tokens * size.h_res, type);
  args.scratch = call.scratch(static_cast<float*>(args.scratch), size.plan.scratch);
  return call.run([&](Stream stream) { return cuda::coefficients_forward(args, stream); });
}

inline Status coefficients_backward(CoefficientsBackwardArgs args, Stream) {
  if (args.dtype == DType::kFloat64) return cuda::coefficients_backward(args, nullptr);
  const CoefficientSizesOf size(args.settings, args.tokens);
  const DType type = DType::kFloat32;
  DeviceCall call;
  args.grad_h_pre = call.input(args.grad_h_pre, size.tokens, size.n, type);
  args.grad_h_post = call.input(args.grad_h_post, size.tokens, size.n, type);
  args.grad_h_res = call.input(args.grad_h_res, size.tokens, size.h_res, type);
  args.logits = call.input(args.logits, size.tokens, size.logits, type);
  args.inv_rms = call.input(args.inv_rms, size.tokens, size.rms, type);
  args.alpha = call.input(args.alpha, size.alphas, type);
  args.bias = call.input(args.bias, size.logits, type);
  args.grad_logits = call.output(args.grad_logits, size.tokens * size.logits, type);
  args.grad_inv_rms = call.output(args.grad_inv_rms, size.tokens * size.rms, type);
  args.grad_alpha = call.output(args.grad_alpha, size.alphas, type);
  args.grad_bias = call.output(args.grad_bias, size.logits, type);
  args.partials = call.scratch(args.partials, size.plan.partials * 2 * size.logits);
  args.scratch = call.scratch(static_cast<float*>(args.scratch), size.plan.scratch);
  args.h_pre = call.input(args.h_pre, size.tokens, size.n, type);
  args.h_post = call.input(args.h_post, size.tokens, size.n, type);
  return call.run([&](Stream stream) { return cuda::coefficients_backward(args, stream); });
}

}  // namespace hyperstreams::cuda::testing
