// The checked inputs of expand and its adjoint, on either device.
#pragma once

#include <tuple>

#include "hyperstreams/expand.h"
#include "tensors.h"

namespace hyperstreams::torch_binding {

/// The hidden rows [..., C] with a checked number of streams.
struct HiddenRows {
  int64_t width, tokens;
  int n_streams;
  DType dtype;
  Rows rows;

  HiddenRows(const Tensor& h, int64_t n, const char* op)
      : width(h.dim() >= 1 ? h.size(h.dim() - 1) : 0),
        tokens(width ? h.numel() / width : 0),
        n_streams(static_cast<int>(n)),
        dtype(dtype_of(h, op)),
        rows(checked(h, n, op), 1, tokens, width, h.scalar_type(), op, "h") {}

  static const Tensor& checked(const Tensor& h, int64_t n, const char* op) {
    STD_TORCH_CHECK(h.dim() >= 1 && h.size(h.dim() - 1) >= 1, op, ": h must be [..., C], C >= 1");
    STD_TORCH_CHECK(n >= 1 && n <= kMaxStreams, op, ": n_streams must be in 1..", kMaxStreams,
                    ", got ", n);
    return h;
  }

  int64_t size() const { return n_streams * width; }

  std::optional<Rows> parameter(const std::optional<Tensor>& value, const char* op,
                                const char* name) const {
    if (!value) return std::nullopt;
    STD_TORCH_CHECK(value->dim() == 2 && value->size(0) == n_streams && value->size(1) == width, op,
                    ": ", name, " must be [n, C]");
    return Rows(*value, 2, tokens, size(), coefficient_type(dtype), op, name);
  }
};

inline const void* data_of(const std::optional<Rows>& rows) {
  return rows ? rows->view.data : nullptr;
}

/// Forward.
struct ExpandTensors {
  HiddenRows hidden;
  std::optional<Rows> scale, bias;
  Tensor x;

  ExpandTensors(const Tensor& h, int64_t n, const std::optional<Tensor>& scale_,
                const std::optional<Tensor>& bias_, const char* op)
      : hidden(h, n, op),
        scale(hidden.parameter(scale_, op, "scale")),
        bias(hidden.parameter(bias_, op, "bias")),
        x(new_empty(h, shape_with_tail(h, 1, {n, hidden.width}), h.scalar_type())) {}

  ExpandArgs args() {
    return {hidden.tokens,    hidden.n_streams, hidden.width,  hidden.dtype,
            hidden.rows.view, data_of(scale),   data_of(bias), x.mutable_data_ptr()};
  }
};

/// Backward, once the rows of scratch are known.
struct ExpandGradients {
  const HiddenRows& hidden;
  Streams grad_x;
  std::optional<Rows> scale;
  bool has_bias;
  Tensor grad_h, grad_scale, grad_bias;
  Scratch partials;

  ExpandGradients(const HiddenRows& hidden_, const Tensor& grad_x_, const Tensor& h,
                  const std::optional<Tensor>& scale_, bool has_bias_, int64_t parts,
                  const char* op)
      : hidden(hidden_),
        grad_x(grad_x_, op),
        scale(hidden.parameter(scale_, op, "scale")),
        has_bias(has_bias_),
        grad_h(new_empty_as(h)),
        grad_scale(parameter_gradient(h, scale.has_value())),
        grad_bias(parameter_gradient(h, has_bias)),
        partials(h, scale || has_bias ? 2 * parts * hidden.size() : 0,
                 coefficient_type(hidden.dtype)) {
    STD_TORCH_CHECK(grad_x.dtype == hidden.dtype && grad_x.tokens == hidden.tokens &&
                        grad_x.n_streams == hidden.n_streams && grad_x.width == hidden.width,
                    op, ": grad_x must be [..., n, C] in h's dtype");
  }

  Tensor parameter_gradient(const Tensor& h, bool wanted) const {
    const ScalarType type = coefficient_type(hidden.dtype);
    return wanted ? new_empty(h, {hidden.n_streams, hidden.width}, type) : new_empty(h, {0}, type);
  }

  ExpandBackwardArgs args() {
    return {hidden.tokens,
            hidden.n_streams,
            hidden.width,
            hidden.dtype,
            grad_x.view,
            hidden.rows.view,
            data_of(scale),
            grad_h.mutable_data_ptr(),
            scale ? grad_scale.mutable_data_ptr() : nullptr,
            has_bias ? grad_bias.mutable_data_ptr() : nullptr,
            partials.data()};
  }

  std::tuple<Tensor, Tensor, Tensor> all() const { return {grad_h, grad_scale, grad_bias}; }
};

}  // namespace hyperstreams::torch_binding
