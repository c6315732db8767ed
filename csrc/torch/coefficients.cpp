// Torch ops of coefficients; the contract stands in hyperstreams/coefficients.h.
#include "hyperstreams/coefficients.h"

#include "coefficient_tensors.h"

namespace hyperstreams::torch_binding {
namespace {

std::tuple<Tensor, Tensor, Tensor> coefficients(const Tensor& logits,
                                                const std::optional<Tensor>& inv_rms,
                                                const Tensor& alpha, const Tensor& bias,
                                                int64_t n_streams, int64_t map,
                                                const std::vector<int64_t>& settings,
                                                const std::vector<double>& constants) {
  const char* op = "coefficients";
  const CoefficientSettings s = coefficient_settings(n_streams, map, settings, constants, op);
  const Controller c(logits, inv_rms, alpha, bias, s, op);
  Coefficients h(c, logits, s, 0);
  cpu::coefficients_forward(h.args(c, s), parallel_for);
  return h.all();
}

std::tuple<Tensor, Tensor, Tensor, Tensor> coefficients_backward(
    const Tensor& grad_h_pre, const Tensor& grad_h_post, const std::optional<Tensor>& grad_h_res,
    const Tensor& logits, const std::optional<Tensor>& inv_rms, const Tensor& alpha,
    const Tensor& bias, const std::optional<Tensor>& h_pre, const std::optional<Tensor>& h_post,
    int64_t n_streams, int64_t map, const std::vector<int64_t>& settings,
    const std::vector<double>& constants) {
  const char* op = "coefficients_backward";
  const CoefficientSettings s = coefficient_settings(n_streams, map, settings, constants, op);
  const Controller c(logits, inv_rms, alpha, bias, s, op);
  const int64_t partials = token_partitions(c.tokens) * (2 + s.mix_groups + c.logit_count);
  CoefficientGradients gradients(c, grad_h_pre, grad_h_post, grad_h_res, logits, inv_rms, h_pre,
                                 h_post, s, partials, 0, op);
  cpu::coefficients_backward(gradients.args(c, s), parallel_for);
  return gradients.all();
}

}  // namespace
}  // namespace hyperstreams::torch_binding

STABLE_TORCH_LIBRARY_FRAGMENT(hyperstreams, m) {
  m.def(
      "_coefficients(Tensor logits, Tensor? inv_rms, Tensor alpha, Tensor bias, int n_streams, "
      "int map, int[] settings, float[] constants) -> (Tensor, Tensor, Tensor)");
  m.def(
      "_coefficients_backward(Tensor grad_h_pre, Tensor grad_h_post, Tensor? grad_h_res, "
      "Tensor logits, Tensor? inv_rms, Tensor alpha, Tensor bias, Tensor? h_pre, "
      "Tensor? h_post, int n_streams, int map, int[] settings, float[] constants) -> "
      "(Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(hyperstreams, CPU, m) {
  m.impl("_coefficients", TORCH_BOX(&hyperstreams::torch_binding::coefficients));
  m.impl("_coefficients_backward", TORCH_BOX(&hyperstreams::torch_binding::coefficients_backward));
}
