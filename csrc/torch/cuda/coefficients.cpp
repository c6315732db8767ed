// CUDA implementation of the torch ops of coefficients; their schemas are registered with the CPU
// ops.
#include "hyperstreams/coefficients.h"

#include "../coefficient_tensors.h"
#include "device.h"
#include "hyperstreams/plan.h"

namespace hyperstreams::torch_binding {
namespace {

/// Checks that everything is on the device of the logits.
void require_inputs(const OnDevice& device, const char* op, const std::optional<Tensor>& inv_rms,
                    const Tensor& alpha, const Tensor& bias) {
  if (inv_rms) device.require(*inv_rms, op, "inv_rms");
  device.require(alpha, op, "alpha");
  device.require(bias, op, "bias");
}

std::tuple<Tensor, Tensor, Tensor> coefficients(const Tensor& logits,
                                                const std::optional<Tensor>& inv_rms,
                                                const Tensor& alpha, const Tensor& bias,
                                                int64_t n_streams, int64_t map,
                                                const std::vector<int64_t>& settings,
                                                const std::vector<double>& constants) {
  const char* op = "coefficients";
  const OnDevice device(logits, op);
  require_inputs(device, op, inv_rms, alpha, bias);
  const CoefficientSettings s = coefficient_settings(n_streams, map, settings, constants, op);
  const Controller c(logits, inv_rms, alpha, bias, s, op);
  Coefficients h(c, logits, s, cuda::plan_coefficients(c.tokens, s).forward.scratch);
  check_status(cuda::coefficients_forward(h.args(c, s), device.stream()), op);
  return h.all();
}

std::tuple<Tensor, Tensor, Tensor, Tensor> coefficients_backward(
    const Tensor& grad_h_pre, const Tensor& grad_h_post, const Tensor& grad_h_res,
    const Tensor& logits, const std::optional<Tensor>& inv_rms, const Tensor& alpha,
    const Tensor& bias, const std::optional<Tensor>& h_pre, const std::optional<Tensor>& h_post,
    int64_t n_streams, int64_t map, const std::vector<int64_t>& settings,
    const std::vector<double>& constants) {
  const char* op = "coefficients_backward";
  const OnDevice device(logits, op);
  require_inputs(device, op, inv_rms, alpha, bias);
  device.require(grad_h_pre, op, "grad_h_pre");
  device.require(grad_h_post, op, "grad_h_post");
  const CoefficientSettings s = coefficient_settings(n_streams, map, settings, constants, op);
  if (s.map != MapKind::kIdentity) device.require(grad_h_res, op, "grad_h_res");
  const Controller c(logits, inv_rms, alpha, bias, s, op);
  const cuda::CoefficientsPlan plan = cuda::plan_coefficients(c.tokens, s);
  CoefficientGradients gradients(c, grad_h_pre, grad_h_post, grad_h_res, logits, inv_rms, h_pre,
                                 h_post, s, plan.partials * 2 * c.logit_count,
                                 plan.backward.scratch, op);
  check_status(cuda::coefficients_backward(gradients.args(c, s), device.stream()), op);
  return gradients.all();
}

}  // namespace
}  // namespace hyperstreams::torch_binding

STABLE_TORCH_LIBRARY_IMPL(hyperstreams, CUDA, m) {
  m.impl("_coefficients", TORCH_BOX(&hyperstreams::torch_binding::coefficients));
  m.impl("_coefficients_backward", TORCH_BOX(&hyperstreams::torch_binding::coefficients_backward));
}
