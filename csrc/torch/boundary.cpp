// Torch ops of boundary; the contract stands in hyperstreams/boundary.h.
//
// A result that stands for something absent (no write, no controller, no given read weights) is an
// empty tensor.
#include "hyperstreams/boundary.h"

#include <tuple>

#include "coefficient_settings.h"
#include "mix_write_tensors.h"
#include "project_inputs.h"

namespace hyperstreams::torch_binding {
namespace {

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

std::optional<BoundaryController> controller_of(
    const Streams& x, const OptionalTensor& phi, const OptionalTensor& norm_weight,
    const OptionalTensor& alpha, const OptionalTensor& bias, int64_t map,
    const std::vector<int64_t>& settings, const std::vector<double>& constants, const char* op) {
  if (!phi) return std::nullopt;
  return BoundaryController(x, *phi, norm_weight, alpha, bias, map, settings, constants, op);
}

/// x itself, contiguous where its rows must be.
Tensor boundary_streams(const Tensor& x, const OptionalTensor& y, const OptionalTensor& phi,
                        const std::vector<int64_t>& settings) {
  const bool per_stream = phi && !settings.empty() && settings[0] != 0;
  return per_stream && !y ? torch::stable::contiguous(x) : x;
}

std::optional<Rows> given_weights(const Streams& x, const OptionalTensor& weights, const char* op) {
  if (!weights) return std::nullopt;
  return Rows(*weights, 1, x.tokens, x.n_streams, coefficient_type(x.dtype), op, "read_weights");
}

std::optional<MixWriteInputs> pending_write(const Tensor& x, const OptionalTensor& y,
                                            const OptionalTensor& h_res,
                                            const OptionalTensor& h_post,
                                            const OptionalTensor& write_bias, const char* op) {
  if (!y) return std::nullopt;
  STD_TORCH_CHECK(h_post, op, ": h_post: expected a tensor beside y");
  return std::make_optional<MixWriteInputs>(x, *y, h_res, *h_post, write_bias, op);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> boundary(
    const Tensor& streams, const OptionalTensor& y, const OptionalTensor& h_res,
    const OptionalTensor& h_post, const OptionalTensor& write_bias, const OptionalTensor& phi,
    const OptionalTensor& norm_weight, const OptionalTensor& alpha, const OptionalTensor& bias,
    const OptionalTensor& read_weights, double eps, int64_t eps_position, int64_t map,
    const std::vector<int64_t>& settings, const std::vector<double>& constants) {
  const char* op = "boundary";
  const Tensor x = boundary_streams(streams, y, phi, settings);
  const Streams in(x, op);
  const int n = in.n_streams;
  const ScalarType type = coefficient_type(in.dtype);
  const auto write = pending_write(x, y, h_res, h_post, write_bias, op);
  const auto next = controller_of(in, phi, norm_weight, alpha, bias, map, settings, constants, op);
  const auto given = given_weights(in, read_weights, op);
  STD_TORCH_CHECK(next || given, op, ": expected phi or read_weights");

  const auto per_token = [&](bool present, std::initializer_list<int64_t> tail) {
    return present ? new_empty(x, shape_with_tail(x, 2, tail), type) : new_empty(x, {0}, type);
  };
  Tensor x_out = write ? new_empty_as(x) : new_empty(x, {0}, x.scalar_type());
  Tensor u = new_empty(x, shape_with_tail(x, 2, {in.width}), x.scalar_type());
  Tensor next_pre = per_token(bool(next), {n}), next_post = per_token(bool(next), {n});
  Tensor next_res = per_token(next && next->has_h_res(), {n, n});
  Tensor logits, inv_rms;
  if (next && next->per_stream) {
    logits = per_token(true, {n, 2 + n});
    inv_rms = per_token(true, {n});
  } else {
    logits = per_token(bool(next), {next ? next->logit_count : 0});
    inv_rms = per_token(bool(next), {});
  }

  const StreamsView state =
      write ? StreamsView{x_out.const_data_ptr(), n * in.width, in.width} : in.view;
  MixWriteArgs write_args = {};
  if (write) write_args = write->args(x_out);
  ProjectArgs project_args = {};
  CoefficientsArgs coefficient_args = {};
  const Scratch workspace(x, next ? project_workspace(next->shape) : 0, type);
  if (next) {
    project_args = {next->shape,
                    next->view(state),
                    next->phi.const_data_ptr(),
                    data_or_null(next->norm_weight),
                    eps,
                    eps_position_of(eps_position, op),
                    logits.mutable_data_ptr(),
                    inv_rms.mutable_data_ptr(),
                    workspace.data()};
    coefficient_args = {in.tokens,
                        in.dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32,
                        next->settings,
                        {logits.const_data_ptr(), next->logit_count},
                        {inv_rms.const_data_ptr(), next->rms_count()},
                        next->alpha.const_data_ptr(),
                        next->bias.const_data_ptr(),
                        next_pre.mutable_data_ptr(),
                        next_post.mutable_data_ptr(),
                        next_res.mutable_data_ptr()};
  }
  const RowsView weights = given ? given->view : RowsView{next_pre.const_data_ptr(), n};
  cpu::boundary_forward({write ? &write_args : nullptr,
                         next ? &project_args : nullptr,
                         next ? &coefficient_args : nullptr,
                         {in.tokens, n, in.width, in.dtype, state, weights, u.mutable_data_ptr()}},
                        parallel_for);
  return {x_out, u, next_pre, next_post, next_res, logits, inv_rms};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>
boundary_backward(const Tensor& grad_x_out, const Tensor& grad_u, const Tensor& grad_h_pre,
                  const Tensor& grad_h_post, const Tensor& grad_h_res, const Tensor& streams,
                  const OptionalTensor& y, const OptionalTensor& h_res,
                  const OptionalTensor& h_post, const OptionalTensor& write_bias,
                  const OptionalTensor& phi, const OptionalTensor& norm_weight,
                  const OptionalTensor& alpha, const OptionalTensor& bias,
                  const OptionalTensor& read_weights, const Tensor& logits, const Tensor& inv_rms,
                  const Tensor& h_pre, double eps, int64_t eps_position, int64_t map,
                  const std::vector<int64_t>& settings, const std::vector<double>& constants) {
  const char* op = "boundary_backward";
  const Tensor x = boundary_streams(streams, y, phi, settings);
  const Streams in(x, op);
  const int n = in.n_streams;
  const int64_t tokens = in.tokens, width = in.width;
  const ScalarType type = coefficient_type(in.dtype);
  const auto write = pending_write(x, y, h_res, h_post, write_bias, op);
  const auto next = controller_of(in, phi, norm_weight, alpha, bias, map, settings, constants, op);
  const auto given = given_weights(in, read_weights, op);
  STD_TORCH_CHECK(next || given, op, ": expected phi or read_weights");
  const int64_t parts = boundary_partitions(next ? &next->shape : nullptr, tokens, width);

  const auto gradient_of = [&](const OptionalTensor& input) {
    return input ? new_empty_as(*input) : new_empty(x, {0}, type);
  };
  std::optional<MixWriteGradients> adjoint;
  MixWriteBackwardArgs write_args = {};
  if (write) {
    adjoint.emplace(*write, grad_x_out, x, *y, h_res, *h_post, write_bias, parts, parts, op);
    write_args = adjoint->args();
  }
  const auto none = [&] { return new_empty(x, {0}, type); };
  Tensor grad_x = adjoint ? adjoint->grad_x : new_empty_as(x);
  Tensor grad_phi = gradient_of(phi), grad_norm = gradient_of(norm_weight);
  Tensor grad_weights = gradient_of(read_weights);
  // Without a controller alpha and bias are not looked at.
  Tensor grad_alpha = gradient_of(next ? alpha : OptionalTensor());
  Tensor grad_bias = gradient_of(next ? bias : OptionalTensor());

  ProjectBackwardArgs project_args = {};
  CoefficientsBackwardArgs coefficient_args = {};
  std::optional<Rows> pre, post, res, z, rms;
  Tensor statistics;
  const Scratch workspace(x, next ? project_backward_workspace(next->shape) : 0, type);
  const Scratch coefficient_partials(x, next ? parts * (next->groups() + next->logit_count) : 0,
                                     ScalarType::Double);
  if (next) {
    pre.emplace(grad_h_pre, 1, tokens, n, type, op, "grad_h_pre");
    post.emplace(grad_h_post, 1, tokens, n, type, op, "grad_h_post");
    if (next->has_h_res()) res.emplace(grad_h_res, 2, tokens, n * n, type, op, "grad_h_res");
    z.emplace(logits, next->per_stream ? 2 : 1, tokens, next->logit_count, type, op, "logits");
    statistics = as_contiguous(inv_rms);
    rms.emplace(statistics, next->per_stream ? 1 : 0, tokens, next->rms_count(), type, op,
                "inv_rms");
    project_args.shape = next->shape;
    project_args.phi = next->phi.const_data_ptr();
    project_args.norm_weight = data_or_null(next->norm_weight);
    project_args.inv_rms = statistics.const_data_ptr();
    project_args.eps = eps;
    project_args.eps_position = eps_position_of(eps_position, op);
    project_args.grad_phi = grad_phi.mutable_data_ptr();
    project_args.grad_norm_weight = norm_weight ? grad_norm.mutable_data_ptr() : nullptr;
    project_args.workspace = workspace.data();
    coefficient_args = {tokens,
                        in.dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32,
                        next->settings,
                        pre->view,
                        post->view,
                        res ? res->view : RowsView{nullptr, 0},
                        z->view,
                        rms->view,
                        next->alpha.const_data_ptr(),
                        next->bias.const_data_ptr(),
                        nullptr,
                        nullptr,
                        grad_alpha.mutable_data_ptr(),
                        grad_bias.mutable_data_ptr(),
                        coefficient_partials.doubles()};
  }

  const Rows branch(grad_u, 1, tokens, width, x.scalar_type(), op, "grad_u");
  std::optional<Rows> own;
  if (!given) own.emplace(h_pre, 1, tokens, n, type, op, "h_pre");
  const Scratch weight_partials(x, given && given->is_static ? parts * n : 0, ScalarType::Double);
  const ReadBackwardArgs read = {tokens,
                                 n,
                                 width,
                                 in.dtype,
                                 in.view,
                                 given ? given->view : own->view,
                                 branch.view,
                                 grad_x.mutable_data_ptr(),
                                 given ? grad_weights.mutable_data_ptr() : nullptr,
                                 weight_partials.doubles()};
  cpu::boundary_backward({write ? &write_args : nullptr, next ? &project_args : nullptr,
                          next ? &coefficient_args : nullptr, read},
                         parallel_for);
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
