// Torch ops of project; the contract stands in hyperstreams/project.h.
#include "hyperstreams/project.h"

#include <tuple>

#include "project_inputs.h"

namespace hyperstreams::torch_binding {
namespace {

std::tuple<Tensor, Tensor> project(const Tensor& x, const Tensor& phi,
                                   const std::optional<Tensor>& norm_weight, double eps,
                                   int64_t eps_position) {
  const char* op = "project";
  const Streams streams(x, op);
  const ProjectShape shape = shape_of(streams, phi, op);
  const ScalarType type = coefficient_type(streams.dtype);
  const auto weight = parameter(phi, shape.n_logits * shape.features(), type, op, "phi");
  const auto norm = parameter(norm_weight, shape.features(), type, op, "norm_weight");
  Tensor logits = new_empty(x, shape_with_tail(x, 2, {shape.n_logits}), type);
  Tensor inv_rms = new_empty(x, shape_with_tail(x, 2, {}), type);
  const Scratch workspace(x, project_workspace(shape), type);
  cpu::project_forward({shape, streams.view, weight->const_data_ptr(), data_or_null(norm), eps,
                        eps_position_of(eps_position, op), logits.mutable_data_ptr(),
                        inv_rms.mutable_data_ptr(), workspace.data()},
                       parallel_for);
  return {logits, inv_rms};
}

std::tuple<Tensor, Tensor, Tensor> project_backward(const Tensor& grad_logits,
                                                    const Tensor& grad_inv_rms, const Tensor& x,
                                                    const Tensor& phi,
                                                    const std::optional<Tensor>& norm_weight,
                                                    const Tensor& inv_rms, double eps,
                                                    int64_t eps_position) {
  const char* op = "project_backward";
  const Streams streams(x, op);
  const ProjectShape shape = shape_of(streams, phi, op);
  const ScalarType type = coefficient_type(streams.dtype);
  const auto weight = parameter(phi, shape.n_logits * shape.features(), type, op, "phi");
  const auto norm = parameter(norm_weight, shape.features(), type, op, "norm_weight");
  const auto logits =
      parameter(grad_logits, shape.tokens * shape.n_logits, type, op, "grad_logits");
  const auto grad_inv = parameter(grad_inv_rms, shape.tokens, type, op, "grad_inv_rms");
  const auto inv = parameter(inv_rms, shape.tokens, type, op, "inv_rms");
  Tensor grad_x = new_empty_as(x);
  Tensor grad_phi = new_empty_as(phi);
  Tensor grad_norm = norm ? new_empty_as(*norm_weight) : new_empty(x, {0}, type);
  const Scratch workspace(x, project_backward_workspace(shape), type);
  cpu::project_backward(
      {shape, streams.view, weight->const_data_ptr(), data_or_null(norm), inv->const_data_ptr(),
       logits->const_data_ptr(), grad_inv->const_data_ptr(), eps, eps_position_of(eps_position, op),
       grad_x.mutable_data_ptr(), grad_phi.mutable_data_ptr(),
       norm ? grad_norm.mutable_data_ptr() : nullptr, workspace.data()},
      parallel_for);
  return {grad_x, grad_phi, grad_norm};
}

}  // namespace
}  // namespace hyperstreams::torch_binding

STABLE_TORCH_LIBRARY_FRAGMENT(hyperstreams, m) {
  m.def(
      "_project(Tensor x, Tensor phi, Tensor? norm_weight, float eps, int eps_position) -> "
      "(Tensor, Tensor)");
  m.def(
      "_project_backward(Tensor grad_logits, Tensor grad_inv_rms, Tensor x, Tensor phi, "
      "Tensor? norm_weight, Tensor inv_rms, float eps, int eps_position) -> "
      "(Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(hyperstreams, CPU, m) {
  m.impl("_project", TORCH_BOX(&hyperstreams::torch_binding::project));
  m.impl("_project_backward", TORCH_BOX(&hyperstreams::torch_binding::project_backward));
}
