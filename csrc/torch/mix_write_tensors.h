// The checked inputs and the outputs of mix_write and its adjoint, on either device.
#pragma once

#include <tuple>

#include "hyperstreams/mix_write.h"
#include "tensors.h"

namespace hyperstreams::torch_binding {

/// The inputs that forward and backward share.
struct MixWriteInputs {
  Streams x;
  DType y_dtype;
  Rows y;
  std::optional<Rows> h_res;
  Rows h_post;
  std::optional<Rows> bias;

  MixWriteInputs(const Tensor& x_, const Tensor& y_, const std::optional<Tensor>& h_res_,
                 const Tensor& h_post_, const std::optional<Tensor>& bias_, const char* op)
      : x(x_, op),
        y_dtype(dtype_of(y_, op)),
        y(y_, 1, x.tokens, x.width, y_.scalar_type(), op, "y"),
        h_post(h_post_, 1, x.tokens, x.n_streams, coefficient_type(x.dtype), op, "h_post") {
    const ScalarType type = coefficient_type(x.dtype);
    STD_TORCH_CHECK(!y.is_static || x.tokens == 1, op, ": y must be [..., C] beside streams");
    if (h_res_) h_res.emplace(*h_res_, 2, x.tokens, x.n_streams * x.n_streams, type, op, "h_res");
    if (bias_) bias.emplace(*bias_, 1, x.tokens, x.width, type, op, "bias");
    STD_TORCH_CHECK(!bias || bias->is_static, op, ": bias must be [C]");
  }

  /// Whether a gradient is summed over tokens beside grad_bias.
  bool has_static() const { return (h_res && h_res->is_static) || h_post.is_static; }
  RowsView h_res_view() const { return h_res ? h_res->view : RowsView{nullptr, 0}; }
  const void* bias_data() const { return bias ? bias->view.data : nullptr; }

  /// Forward, once x_out is there.
  MixWriteArgs args(Tensor& x_out) const {
    return {x.tokens,
            x.n_streams,
            x.width,
            x.dtype,
            y_dtype,
            x.view,
            y.view,
            h_res_view(),
            h_post.view,
            bias_data(),
            x_out.mutable_data_ptr()};
  }
};

/// Gradients and scratch; `parts` and `bias_parts` are the scratch's rows.
struct MixWriteGradients {
  const MixWriteInputs& in;
  Streams grad_out;
  Tensor grad_x, grad_y, grad_h_res, grad_h_post, grad_bias;
  Scratch partials, bias_partials;

  MixWriteGradients(const MixWriteInputs& inputs, const Tensor& grad_out_, const Tensor& x,
                    const Tensor& y, const std::optional<Tensor>& h_res, const Tensor& h_post,
                    const std::optional<Tensor>& bias, int64_t parts, int64_t bias_parts,
                    const char* op)
      : in(inputs),
        grad_out(grad_out_, op),
        grad_x(new_empty_as(x)),
        grad_y(new_empty_as(y)),
        grad_h_res(gradient_of(h_res, h_post)),
        grad_h_post(new_empty_as(h_post)),
        grad_bias(gradient_of(bias, h_post)),
        partials(x, parts * (in.x.n_streams + 1) * in.x.n_streams, ScalarType::Double),
        bias_partials(x, bias ? bias_parts * in.x.width : 0, h_post.scalar_type()) {
    STD_TORCH_CHECK(grad_out.dtype == in.x.dtype && grad_out.tokens == in.x.tokens &&
                        grad_out.n_streams == in.x.n_streams && grad_out.width == in.x.width,
                    op, ": grad_out must have the shape and dtype of x");
  }

  static Tensor gradient_of(const std::optional<Tensor>& input, const Tensor& h_post) {
    return input ? new_empty_as(*input) : new_empty(h_post, {0}, h_post.scalar_type());
  }

  MixWriteBackwardArgs args() {
    return {in.x.tokens,
            in.x.n_streams,
            in.x.width,
            in.x.dtype,
            in.y_dtype,
            grad_out.view,
            in.x.view,
            in.y.view,
            in.h_res_view(),
            in.h_post.view,
            in.bias_data(),
            grad_x.mutable_data_ptr(),
            grad_y.mutable_data_ptr(),
            grad_h_res.mutable_data_ptr(),
            grad_h_post.mutable_data_ptr(),
            grad_bias.mutable_data_ptr(),
            partials.doubles(),
            bias_partials.data()};
  }

  std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> all() const {
    return {grad_x, grad_y, grad_h_res, grad_h_post, grad_bias};
  }
};

}  // namespace hyperstreams::torch_binding
