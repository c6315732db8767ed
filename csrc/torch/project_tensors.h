// The operands and results of project, for the bindings of all devices.
#pragma once

#include <tuple>

#include "project_inputs.h"

namespace hyperstreams::torch_binding {

/// Streams and the controller's parameters.
struct ProjectInputs {
  Streams streams;
  ProjectShape shape;
  ScalarType type;  // of everything but streams
  std::optional<Tensor> phi, norm_weight;
  double eps;
  EpsPosition eps_position;

  ProjectInputs(const Tensor& x, const Tensor& phi_, const std::optional<Tensor>& norm_weight_,
                double eps_, int64_t eps_position_, const char* op)
      : streams(x, op),
        shape(shape_of(streams, phi_, op)),
        type(coefficient_type(streams.dtype)),
        phi(parameter(phi_, shape.n_logits * shape.features(), type, op, "phi")),
        norm_weight(parameter(norm_weight_, shape.features(), type, op, "norm_weight")),
        eps(eps_),
        eps_position(eps_position_of(eps_position_, op)) {}
};

/// What the forward returns, and its scratch.
struct ProjectResults {
  Tensor logits, inv_rms, workspace;

  ProjectResults(const ProjectInputs& in, const Tensor& x, int64_t workspace_size)
      : logits(new_empty(x, shape_with_tail(x, 2, {in.shape.n_logits}), in.type)),
        inv_rms(new_empty(x, shape_with_tail(x, 2, {}), in.type)),
        workspace(new_empty(x, {workspace_size}, in.type)) {}

  ProjectArgs args(const ProjectInputs& in) {
    return {in.shape,
            in.streams.view,
            in.phi->const_data_ptr(),
            data_or_null(in.norm_weight),
            in.eps,
            in.eps_position,
            logits.mutable_data_ptr(),
            inv_rms.mutable_data_ptr(),
            workspace.mutable_data_ptr()};
  }
};

/// What the backward takes beside the forward's inputs, what it returns, and its scratch.
struct ProjectGradients {
  std::optional<Tensor> grad_logits, grad_inv_rms, inv_rms;
  Tensor grad_x, grad_phi, grad_norm_weight, workspace;

  ProjectGradients(const ProjectInputs& in, const Tensor& grad_logits_, const Tensor& grad_inv_rms_,
                   const Tensor& x, const Tensor& phi, const std::optional<Tensor>& norm_weight,
                   const Tensor& inv_rms_, int64_t workspace_size, const char* op)
      : grad_logits(parameter(grad_logits_, in.shape.tokens * in.shape.n_logits, in.type, op,
                              "grad_logits")),
        grad_inv_rms(parameter(grad_inv_rms_, in.shape.tokens, in.type, op, "grad_inv_rms")),
        inv_rms(parameter(inv_rms_, in.shape.tokens, in.type, op, "inv_rms")),
        grad_x(new_empty_as(x)),
        grad_phi(new_empty_as(phi)),
        grad_norm_weight(norm_weight ? new_empty_as(*norm_weight) : new_empty(x, {0}, in.type)),
        workspace(new_empty(x, {workspace_size}, in.type)) {}

  ProjectBackwardArgs args(const ProjectInputs& in) {
    return {in.shape,
            in.streams.view,
            in.phi->const_data_ptr(),
            data_or_null(in.norm_weight),
            inv_rms->const_data_ptr(),
            grad_logits->const_data_ptr(),
            grad_inv_rms->const_data_ptr(),
            in.eps,
            in.eps_position,
            grad_x.mutable_data_ptr(),
            grad_phi.mutable_data_ptr(),
            in.norm_weight ? grad_norm_weight.mutable_data_ptr() : nullptr,
            workspace.mutable_data_ptr()};
  }

  std::tuple<Tensor, Tensor, Tensor> all() const { return {grad_x, grad_phi, grad_norm_weight}; }
};

}  // namespace hyperstreams::torch_binding
