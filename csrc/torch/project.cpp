// Torch ops of project; the contract stands in hyperstreams/project.h.
#include "hyperstreams/project.h"

#include "project_tensors.h"

namespace hyperstreams::torch_binding {
namespace {

std::tuple<Tensor, Tensor> project(const Tensor& x, const Tensor& phi,
                                   const std::optional<Tensor>& norm_weight, double eps,
                                   int64_t eps_position) {
  const ProjectInputs in(x, phi, norm_weight, eps, eps_position, "project");
  ProjectResults results(in, x, project_workspace(in.shape));
  cpu::project_forward(results.args(in), parallel_for);
  return {results.logits, results.inv_rms};
}

std::tuple<Tensor, Tensor, Tensor> project_backward(const Tensor& grad_logits,
                                                    const Tensor& grad_inv_rms, const Tensor& x,
                                                    const Tensor& phi,
                                                    const std::optional<Tensor>& norm_weight,
                                                    const Tensor& inv_rms, double eps,
                                                    int64_t eps_position) {
  const char* op = "project_backward";
  const ProjectInputs in(x, phi, norm_weight, eps, eps_position, op);
  ProjectGradients gradients(in, grad_logits, grad_inv_rms, x, phi, norm_weight, inv_rms,
                             project_backward_workspace(in.shape), op);
  cpu::project_backward(gradients.args(in), parallel_for);
  return gradients.all();
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
