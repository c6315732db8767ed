// Torch ops of project; the contract stands in hyperstreams/project.h.
#include "hyperstreams/project.h"

#include <tuple>

#include "tensors.h"

namespace hyperstreams::torch_binding {
namespace {

EpsPosition eps_position_of(int64_t value, const char* op) {
  STD_TORCH_CHECK(value >= 0 && value <= 2, op, ": eps_position must be 0, 1 or 2, got ", value);
  return static_cast<EpsPosition>(value);
}

/// A contiguous parameter of the coefficients' dtype with `numel` elements, or undefined.
std::optional<Tensor> parameter(const std::optional<Tensor>& value, int64_t numel, ScalarType type,
                                const char* op, const char* argument) {
  if (!value) return std::nullopt;
  STD_TORCH_CHECK(value->scalar_type() == type, op, ": ", argument, " has the wrong dtype");
  STD_TORCH_CHECK(value->numel() == numel, op, ": ", argument, " must have ", numel,
                  " elements, got ", value->numel());
  return as_contiguous(*value);
}

const void* data_or_null(const std::optional<Tensor>& value) {
  return value ? value->const_data_ptr() : nullptr;
}

ProjectShape shape_of(const Streams& streams, const Tensor& phi, const char* op) {
  STD_TORCH_CHECK(phi.dim() == 2 && phi.size(0) >= 1, op, ": phi must be [K, n * C] with K >= 1");
  return {streams.tokens, streams.n_streams, streams.width, phi.size(0), streams.dtype};
}

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
  Tensor workspace = new_empty(x, {project_workspace(shape)}, type);
  cpu::project_forward({shape, streams.view, weight->const_data_ptr(), data_or_null(norm), eps,
                        eps_position_of(eps_position, op), logits.mutable_data_ptr(),
                        inv_rms.mutable_data_ptr(), workspace.mutable_data_ptr()},
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
  Tensor workspace = new_empty(x, {project_backward_workspace(shape)}, type);
  cpu::project_backward(
      {shape, streams.view, weight->const_data_ptr(), data_or_null(norm), inv->const_data_ptr(),
       logits->const_data_ptr(), grad_inv->const_data_ptr(), eps, eps_position_of(eps_position, op),
       grad_x.mutable_data_ptr(), grad_phi.mutable_data_ptr(),
       norm ? grad_norm.mutable_data_ptr() : nullptr, workspace.mutable_data_ptr()},
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
