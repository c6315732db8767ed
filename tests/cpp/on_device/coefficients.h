#pragma once

#include "device_call.h"
#include "hyperstreams/coefficients.h"
#include "hyperstreams/plan.h"

namespace hyperstreams::cuda::testing {

/// Sizes of one call of coefficients.
struct CoefficientCounts {
  int64_t tokens;
  int n, logits, rms, alphas, h_res;

  CoefficientCounts(const CoefficientSettings& s, int64_t count)
      : tokens(count),
        n(s.n_streams),
        logits(2 * n + mix_logit_count(s.map, s.map_settings, n)),
        rms(s.per_stream ? n : 1),
        alphas(2 + s.mix_groups),
        h_res(s.map == MapKind::kIdentity ? 0 : n * n) {}
};

/// Replaces the operands by their copies on the device; scratch stays.
inline void move(DeviceCall& call, CoefficientsArgs& args) {
  const CoefficientCounts size(args.settings, args.tokens);
  const DType type = DType::kFloat32;
  args.logits = call.input(args.logits, size.tokens, size.logits, type);
  args.inv_rms = call.input(args.inv_rms, size.tokens, size.rms, type);
  args.alpha = call.input(args.alpha, size.alphas, type);
  args.bias = call.input(args.bias, size.logits, type);
  args.h_pre = call.output(args.h_pre, size.tokens * size.n, type);
  args.h_post = call.output(args.h_post, size.tokens * size.n, type);
  args.h_res = call.output(args.h_res, size.tokens * size.h_res, type);
}

inline void move(DeviceCall& call, CoefficientsBackwardArgs& args) {
  const CoefficientCounts size(args.settings, args.tokens);
  const DType type = DType::kFloat32;
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
  args.h_pre = call.input(args.h_pre, size.tokens, size.n, type);
  args.h_post = call.input(args.h_post, size.tokens, size.n, type);
}

inline Status coefficients_forward(CoefficientsArgs args, Stream) {
  if (args.dtype == DType::kFloat64) return cuda::coefficients_forward(args, nullptr);
  const CoefficientsPlan plan = plan_coefficients(args.tokens, args.settings);
  DeviceCall call;
  move(call, args);
  args.scratch = call.scratch(static_cast<float*>(args.scratch), plan.forward.scratch);
  return call.run([&](Stream stream) { return cuda::coefficients_forward(args, stream); });
}

inline Status coefficients_backward(CoefficientsBackwardArgs args, Stream) {
  if (args.dtype == DType::kFloat64) return cuda::coefficients_backward(args, nullptr);
  const CoefficientsPlan plan = plan_coefficients(args.tokens, args.settings);
  const int logits = CoefficientCounts(args.settings, args.tokens).logits;
  DeviceCall call;
  move(call, args);
  args.partials = call.scratch(args.partials, plan.partials * 2 * logits);
  args.scratch = call.scratch(static_cast<float*>(args.scratch), plan.backward.scratch);
  return call.run([&](Stream stream) { return cuda::coefficients_backward(args, stream); });
}

}  // namespace hyperstreams::cuda::testing
