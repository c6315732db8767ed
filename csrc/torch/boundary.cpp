// Torch ops of boundary; the contract stands in hyperstreams/boundary.h.
#include "hyperstreams/boundary.h"

#include "boundary_tensors.h"

namespace hyperstreams::torch_binding {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> boundary(
    const Tensor& x, const OptionalTensor& y, const OptionalTensor& h_res,
    const OptionalTensor& h_post, const OptionalTensor& write_bias, const OptionalTensor& phi,
    const OptionalTensor& norm_weight, const OptionalTensor& alpha, const OptionalTensor& bias,
    const OptionalTensor& read_weights, double eps, int64_t eps_position, int64_t map,
    const std::vector<int64_t>& settings, const std::vector<double>& constants) {
  const char* op = "boundary";
  const BoundaryInputs in(x, y, h_res, h_post, write_bias, phi, norm_weight, alpha, bias,
                          read_weights, eps, eps_position, map, settings, constants, op);
  BoundaryResults results(in, in.next ? project_workspace(in.next->shape) : 0);
  cpu::boundary_forward(results.args(), parallel_for);
  return results.all();
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>
boundary_backward(const Tensor& grad_x_out, const Tensor& grad_u, const Tensor& grad_h_pre,
                  const Tensor& grad_h_post, const Tensor& grad_h_res, const Tensor& x,
                  const OptionalTensor& y, const OptionalTensor& h_res,
                  const OptionalTensor& h_post, const OptionalTensor& write_bias,
                  const OptionalTensor& phi, const OptionalTensor& norm_weight,
                  const OptionalTensor& alpha, const OptionalTensor& bias,
                  const OptionalTensor& read_weights, const Tensor& logits, const Tensor& inv_rms,
                  const Tensor& h_pre, double eps, int64_t eps_position, int64_t map,
                  const std::vector<int64_t>& settings, const std::vector<double>& constants) {
  const char* op = "boundary_backward";
  const BoundaryInputs in(x, y, h_res, h_post, write_bias, phi, norm_weight, alpha, bias,
                          read_weights, eps, eps_position, map, settings, constants, op);
  const int64_t parts = boundary_partitions(in.project_shape(), in.in.tokens, in.in.width);
  BoundaryScratchSizes sizes = {parts, 0, 0, 0, 0};
  if (in.next) {
    sizes.project = project_backward_workspace(in.next->shape);
    sizes.coefficients = parts * (in.next->groups() + in.next->logit_count);
  }
  if (in.given && in.given->is_static) sizes.read = parts * in.in.n_streams;
  BoundaryGradients gradients(in, sizes, grad_x_out, grad_u, grad_h_pre, grad_h_post, grad_h_res, y,
                              h_res, h_post, write_bias, phi, norm_weight, alpha, bias,
                              read_weights, logits, inv_rms, h_pre, op);
  cpu::boundary_backward(gradients.args(), parallel_for);
  return gradients.all();
}

}  // namespace
}  // namespace hyperstreams::torch_binding

STABLE_TORCH_LIBRARY_FRAGMENT(hyperstreams, m) {
  m.def(
      "_boundary(Tensor x, Tensor? y, Tensor? h_res, Tensor? h_post, Tensor? write_bias, "
      "Tensor? phi, Tensor? norm_weight, Tensor? alpha, Tensor? bias, Tensor? read_weights, "
      "float eps, int eps_position, int map, int[] settings, float[] constants) -> "
      "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "_boundary_backward(Tensor grad_x_out, Tensor grad_u, Tensor grad_h_pre, "
      "Tensor grad_h_post, Tensor grad_h_res, Tensor x, Tensor? y, Tensor? h_res, "
      "Tensor? h_post, Tensor? write_bias, Tensor? phi, Tensor? norm_weight, Tensor? alpha, "
      "Tensor? bias, Tensor? read_weights, Tensor logits, Tensor inv_rms, Tensor h_pre, "
      "float eps, int eps_position, int map, int[] settings, float[] constants) -> "
      "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(hyperstreams, CPU, m) {
  m.impl("_boundary", TORCH_BOX(&hyperstreams::torch_binding::boundary));
  m.impl("_boundary_backward", TORCH_BOX(&hyperstreams::torch_binding::boundary_backward));
}
