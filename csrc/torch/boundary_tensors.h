// The checked inputs, the results and the scratch of boundary and its adjoint, on either device.
//
// A result that stands for something absent (no write, no controller, no given read weights) is an
// empty tensor.
#pragma once

#include <tuple>

#include "coefficient_settings.h"
#include "hyperstreams/boundary.h"
#include "mix_write_tensors.h"
#include "project_inputs.h"

namespace hyperstreams::torch_binding {

using OptionalTensor = std::optional<Tensor>;

/// The next site's controller: checked parameters, and the sizes that follow from them.
struct BoundaryController {
  CoefficientSettings settings;
  bool per_stream;
  int64_t logit_count;  // of a token
  ProjectShape shape;
  Tensor phi, alpha, bias;
  OptionalTensor norm_weight;

  BoundaryController(const Streams& x, const Tensor& phi_, const OptionalTensor& norm,
                     const OptionalTensor& alpha_, const OptionalTensor& bias_, int64_t map,
                     const std::vector<int64_t>& integers, const std::vector<double>& constants,
                     const char* op)
      : settings(coefficient_settings(x.n_streams, map, integers, constants, op)),
        per_stream(settings.per_stream),
        phi(phi_),
        alpha(phi_),
        bias(phi_) {
    const int n = x.n_streams;
    const ScalarType type = coefficient_type(x.dtype);
    logit_count = 2 * n + mix_logit_count(settings.map, settings.map_settings, n);
    const int64_t project_logits = per_stream ? 2 + n : logit_count;
    shape = per_stream ? ProjectShape{x.tokens * n, 1, x.width, project_logits, x.dtype}
                       : ProjectShape{x.tokens, n, x.width, project_logits, x.dtype};
    phi = *parameter(phi_, project_logits * shape.features(), type, op, "phi");
    norm_weight = parameter(norm, shape.features(), type, op, "norm_weight");
    STD_TORCH_CHECK(alpha_ && bias_, op, ": alpha and bias: expected tensors beside phi");
    alpha = *parameter(alpha_, 2 + settings.mix_groups, type, op, "alpha");
    bias = *parameter(bias_, logit_count, type, op, "bias");
  }

  int64_t groups() const { return 2 + settings.mix_groups; }
  int64_t rms_count() const { return per_stream ? settings.n_streams : 1; }
  bool has_h_res() const { return settings.map != MapKind::kIdentity; }

  /// X' as project sees it, from contiguous streams or, not per stream, any view.
  StreamsView view(const StreamsView& x) const {
    return per_stream ? StreamsView{x.data, shape.width, shape.width} : x;
  }
};

inline std::optional<BoundaryController> controller_of(
    const Streams& x, const OptionalTensor& phi, const OptionalTensor& norm_weight,
    const OptionalTensor& alpha, const OptionalTensor& bias, int64_t map,
    const std::vector<int64_t>& settings, const std::vector<double>& constants, const char* op) {
  if (!phi) return std::nullopt;
  return BoundaryController(x, *phi, norm_weight, alpha, bias, map, settings, constants, op);
}

/// x itself, contiguous where its rows must be.
inline Tensor boundary_streams(const Tensor& x, const OptionalTensor& y, const OptionalTensor& phi,
                               const std::vector<int64_t>& settings) {
  const bool per_stream = phi && !settings.empty() && settings[0] != 0;
  return per_stream && !y ? torch::stable::contiguous(x) : x;
}

inline std::optional<Rows> given_weights(const Streams& x, const OptionalTensor& weights,
                                         const char* op) {
  if (!weights) return std::nullopt;
  return Rows(*weights, 1, x.tokens, x.n_streams, coefficient_type(x.dtype), op, "read_weights");
}

inline std::optional<MixWriteInputs> pending_write(const Tensor& x, const OptionalTensor& y,
                                                   const OptionalTensor& h_res,
                                                   const OptionalTensor& h_post,
                                                   const OptionalTensor& write_bias,
                                                   const char* op) {
  if (!y) return std::nullopt;
  STD_TORCH_CHECK(h_post, op, ": h_post: expected a tensor beside y");
  return std::make_optional<MixWriteInputs>(x, *y, h_res, *h_post, write_bias, op);
}

/// The operands of both ops.
struct BoundaryInputs {
  Tensor x;
  Streams in;
  ScalarType type;  // of coefficients
  std::optional<MixWriteInputs> write;
  std::optional<BoundaryController> next;
  std::optional<Rows> given;
  double eps;
  EpsPosition eps_position;

  BoundaryInputs(const Tensor& streams, const OptionalTensor& y, const OptionalTensor& h_res,
                 const OptionalTensor& h_post, const OptionalTensor& write_bias,
                 const OptionalTensor& phi, const OptionalTensor& norm_weight,
                 const OptionalTensor& alpha, const OptionalTensor& bias,
                 const OptionalTensor& read_weights, double eps_, int64_t eps_position_,
                 int64_t map, const std::vector<int64_t>& settings,
                 const std::vector<double>& constants, const char* op)
      : x(boundary_streams(streams, y, phi, settings)),
        in(x, op),
        type(coefficient_type(in.dtype)),
        // in.tensor: copied at the most once.
        write(pending_write(in.tensor, y, h_res, h_post, write_bias, op)),
        next(controller_of(in, phi, norm_weight, alpha, bias, map, settings, constants, op)),
        given(given_weights(in, read_weights, op)),
        eps(eps_),
        eps_position(eps_position_of(eps_position_, op)) {
    STD_TORCH_CHECK(next || given, op, ": expected phi or read_weights");
  }

  DType coefficient_dtype() const {
    return in.dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  }
  const ProjectShape* project_shape() const { return next ? &next->shape : nullptr; }
  const CoefficientSettings* settings() const { return next ? &next->settings : nullptr; }
};

/// The forward's results. Scratch of the CPU: project's workspace; of CUDA: boundary's.
struct BoundaryResults {
  const BoundaryInputs& b;
  Tensor x_out, u, next_pre, next_post, next_res, logits, inv_rms;
  Scratch scratch;
  MixWriteArgs write = {};
  ProjectArgs project = {};
  CoefficientsArgs coefficients = {};

  BoundaryResults(const BoundaryInputs& inputs, int64_t scratch_size)
      : b(inputs),
        x_out(b.write ? new_empty_as(b.x) : new_empty(b.x, {0}, b.x.scalar_type())),
        u(new_empty(b.x, shape_with_tail(b.x, 2, {b.in.width}), b.x.scalar_type())),
        next_pre(per_token(bool(b.next), {n()})),
        next_post(per_token(bool(b.next), {n()})),
        next_res(per_token(b.next && b.next->has_h_res(), {n(), n()})),
        logits(per_stream() ? per_token(true, {n(), 2 + n()})
                            : per_token(bool(b.next), {b.next ? b.next->logit_count : 0})),
        inv_rms(per_stream() ? per_token(true, {n()}) : per_token(bool(b.next), {})),
        scratch(b.x, scratch_size, b.type) {}

  /// The pointers of `args` are to parts of this object.
  BoundaryArgs args() {
    const StreamsView state =
        b.write ? StreamsView{x_out.const_data_ptr(), n() * b.in.width, b.in.width} : b.in.view;
    if (b.write) write = b.write->args(x_out);
    if (b.next) {
      const BoundaryController& next = *b.next;
      project = {next.shape,
                 next.view(state),
                 next.phi.const_data_ptr(),
                 data_or_null(next.norm_weight),
                 b.eps,
                 b.eps_position,
                 logits.mutable_data_ptr(),
                 inv_rms.mutable_data_ptr(),
                 scratch.data()};
      coefficients = {b.in.tokens,
                      b.coefficient_dtype(),
                      next.settings,
                      {logits.const_data_ptr(), next.logit_count},
                      {inv_rms.const_data_ptr(), next.rms_count()},
                      next.alpha.const_data_ptr(),
                      next.bias.const_data_ptr(),
                      next_pre.mutable_data_ptr(),
                      next_post.mutable_data_ptr(),
                      next_res.mutable_data_ptr()};
    }
    const RowsView weights = b.given ? b.given->view : RowsView{next_pre.const_data_ptr(), n()};
    return {b.write ? &write : nullptr,
            b.next ? &project : nullptr,
            b.next ? &coefficients : nullptr,
            {b.in.tokens, b.in.n_streams, b.in.width, b.in.dtype, state, weights,
             u.mutable_data_ptr()}};
  }

  std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> all() const {
    return {x_out, u, next_pre, next_post, next_res, logits, inv_rms};
  }

 private:
  int64_t n() const { return b.in.n_streams; }
  bool per_stream() const { return b.next && b.next->per_stream; }
  Tensor per_token(bool present, std::initializer_list<int64_t> tail) const {
    return present ? new_empty(b.x, shape_with_tail(b.x, 2, tail), b.type)
                   : new_empty(b.x, {0}, b.type);
  }
};

/// Elements of the backward's scratch: by part on the CPU, one for all on CUDA.
struct BoundaryScratchSizes {
  int64_t parts;  // rows of write's scratch
  int64_t project, coefficients, read, all;
};

/// What the backward takes beside the forward's inputs, its results and its scratch.
struct BoundaryGradients {
  const BoundaryInputs& b;
  std::optional<MixWriteGradients> adjoint;
  Tensor grad_x, grad_phi, grad_norm, grad_alpha, grad_bias, grad_weights;
  std::optional<Rows> pre, post, res, z, rms, own;
  Tensor statistics;
  Rows branch;
  Scratch workspace, coefficient_partials, weight_partials, scratch;
  MixWriteBackwardArgs write = {};
  ProjectBackwardArgs project = {};
  CoefficientsBackwardArgs coefficients = {};

  BoundaryGradients(const BoundaryInputs& inputs, const BoundaryScratchSizes& sizes,
                    const Tensor& grad_x_out, const Tensor& grad_u, const Tensor& grad_h_pre,
                    const Tensor& grad_h_post, const Tensor& grad_h_res, const OptionalTensor& y,
                    const OptionalTensor& h_res, const OptionalTensor& h_post,
                    const OptionalTensor& write_bias, const OptionalTensor& phi,
                    const OptionalTensor& norm_weight, const OptionalTensor& alpha,
                    const OptionalTensor& bias, const OptionalTensor& read_weights,
                    const Tensor& logits, const Tensor& inv_rms, const Tensor& h_pre,
                    const char* op)
      : b(inputs),
        grad_x(b.x),
        grad_phi(gradient_of(phi)),
        grad_norm(gradient_of(norm_weight)),
        // Without a controller alpha and bias are not looked at.
        grad_alpha(gradient_of(b.next ? alpha : OptionalTensor())),
        grad_bias(gradient_of(b.next ? bias : OptionalTensor())),
        grad_weights(gradient_of(read_weights)),
        statistics(as_contiguous(inv_rms)),
        branch(grad_u, 1, b.in.tokens, b.in.width, b.x.scalar_type(), op, "grad_u"),
        workspace(b.x, sizes.project, b.type),
        coefficient_partials(b.x, sizes.coefficients, ScalarType::Double),
        weight_partials(b.x, sizes.read, ScalarType::Double),
        scratch(b.x, sizes.all, b.type) {
    const int64_t tokens = b.in.tokens, n = b.in.n_streams;
    if (b.write) {
      adjoint.emplace(*b.write, grad_x_out, b.x, *y, h_res, *h_post, write_bias, sizes.parts,
                      sizes.parts, op);
    }
    grad_x = adjoint ? adjoint->grad_x : new_empty_as(b.x);
    if (!b.given) own.emplace(h_pre, 1, tokens, n, b.type, op, "h_pre");
    if (!b.next) return;
    const BoundaryController& next = *b.next;
    pre.emplace(grad_h_pre, 1, tokens, n, b.type, op, "grad_h_pre");
    post.emplace(grad_h_post, 1, tokens, n, b.type, op, "grad_h_post");
    if (next.has_h_res()) res.emplace(grad_h_res, 2, tokens, n * n, b.type, op, "grad_h_res");
    z.emplace(logits, next.per_stream ? 2 : 1, tokens, next.logit_count, b.type, op, "logits");
    rms.emplace(statistics, next.per_stream ? 1 : 0, tokens, next.rms_count(), b.type, op,
                "inv_rms");
  }

  /// The pointers of `args` are to parts of this object.
  BoundaryBackwardArgs args() {
    if (adjoint) write = adjoint->args();
    if (b.next) {
      const BoundaryController& next = *b.next;
      project.shape = next.shape;
      project.phi = next.phi.const_data_ptr();
      project.norm_weight = data_or_null(next.norm_weight);
      project.inv_rms = statistics.const_data_ptr();
      project.eps = b.eps;
      project.eps_position = b.eps_position;
      project.grad_phi = grad_phi.mutable_data_ptr();
      project.grad_norm_weight = next.norm_weight ? grad_norm.mutable_data_ptr() : nullptr;
      project.workspace = workspace.data();
      coefficients = {b.in.tokens,
                      b.coefficient_dtype(),
                      next.settings,
                      pre->view,
                      post->view,
                      res ? res->view : RowsView{nullptr, 0},
                      z->view,
                      rms->view,
                      next.alpha.const_data_ptr(),
                      next.bias.const_data_ptr(),
                      nullptr,
                      nullptr,
                      grad_alpha.mutable_data_ptr(),
                      grad_bias.mutable_data_ptr(),
                      coefficient_partials.doubles()};
    }
    return {adjoint ? &write : nullptr,
            b.next ? &project : nullptr,
            b.next ? &coefficients : nullptr,
            {b.in.tokens, b.in.n_streams, b.in.width, b.in.dtype, b.in.view,
             b.given ? b.given->view : own->view, branch.view, grad_x.mutable_data_ptr(),
             b.given ? grad_weights.mutable_data_ptr() : nullptr, weight_partials.doubles()}};
  }

  std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> all()
      const {
    return {grad_x,
            adjoint ? adjoint->grad_y : none(),
            adjoint ? adjoint->grad_h_res : none(),
            adjoint ? adjoint->grad_h_post : none(),
            adjoint ? adjoint->grad_bias : none(),
            grad_phi,
            grad_norm,
            grad_alpha,
            grad_bias,
            grad_weights};
  }

 private:
  /// A tensor of its own: results do not alias.
  Tensor none() const { return new_empty(b.x, {0}, b.type); }
  Tensor gradient_of(const OptionalTensor& input) const {
    return input ? new_empty_as(*input) : none();
  }
};

}  // namespace hyperstreams::torch_binding
