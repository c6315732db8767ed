// CUDA implementation of the torch ops of project; their schemas are registered with the CPU ops.
#include "hyperstreams/project.h"

#include "../project_tensors.h"
#include "device.h"
#include "hyperstreams/plan.h"

namespace hyperstreams::torch_binding {
namespace {

/// Checks that the parameters are on the device of x.
void require_parameters(const OnDevice& device, const char* op, const Tensor& phi,
                        const std::optional<Tensor>& norm_weight) {
  device.require(phi, op, "phi");
  if (norm_weight) device.require(*norm_weight, op, "norm_weight");
}

std::tuple<Tensor, Tensor> project(const Tensor& x, const Tensor& phi,
                                   const std::optional<Tensor>& norm_weight, double eps,
                                   int64_t eps_position) {
  const char* op = "project";
  const OnDevice device(x, op);
  require_parameters(device, op, phi, norm_weight);
  const ProjectInputs in(x, phi, norm_weight, eps, eps_position, op);
  ProjectResults results(in, x, cuda::plan_project(in.shape, 1).workspace);
  check_status(cuda::project_forward(results.args(in), device.stream()), op);
  return {results.logits, results.inv_rms};
}

std::tuple<Tensor, Tensor, Tensor> project_backward(const Tensor& grad_logits,
                                                    const Tensor& grad_inv_rms, const Tensor& x,
                                                    const Tensor& phi,
                                                    const std::optional<Tensor>& norm_weight,
                                                    const Tensor& inv_rms, double eps,
                                                    int64_t eps_position) {
  const char* op = "project_backward";
  const OnDevice device(x, op);
  require_parameters(device, op, phi, norm_weight);
  device.require(inv_rms, op, "inv_rms");
  device.require(grad_logits, op, "grad_logits");
  device.require(grad_inv_rms, op, "grad_inv_rms");
  const ProjectInputs in(x, phi, norm_weight, eps, eps_position, op);
  ProjectGradients gradients(in, grad_logits, grad_inv_rms, x, phi, norm_weight, inv_rms,
                             cuda::plan_project_backward(in.shape, 1).workspace, op);
  check_status(cuda::project_backward(gradients.args(in), device.stream()), op);
  return gradients.all();
}

}  // namespace
}  // namespace hyperstreams::torch_binding

STABLE_TORCH_LIBRARY_IMPL(hyperstreams, CUDA, m) {
  m.impl("_project", TORCH_BOX(&hyperstreams::torch_binding::project));
  m.impl("_project_backward", TORCH_BOX(&hyperstreams::torch_binding::project_backward));
}
