// Binding of expand (see the contract hyperstreams/expand.h).
#include "hyperstreams/expand.h"

#include <tuple>

#include "tensors.h"

namespace hyperstreams::torch_binding {
namespace {

/// The hidden rows [..., C] with a checked number of streams.
struct Hidden {
  int64_t width, tokens;
  int n_streams;
  DType dtype;
  Rows rows;

  Hidden(const Tensor& h, int64_t n, const char* op)
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

  std::optional<Rows> parameter(const std::optional<Tensor>& value, const char* op,
                                const char* name) const {
    if (!value) return std::nullopt;
    STD_TORCH_CHECK(value->dim() == 2 && value->size(0) == n_streams && value->size(1) == width, op,
                    ": ", name, " must be [n, C]");
    return Rows(*value, 2, tokens, n_streams * width, coefficient_type(dtype), op, name);
  }
};

const void* data_of(const std::optional<Rows>& rows) { return rows ? rows->view.data : nullptr; }

Tensor expand(const Tensor& h, int64_t n_streams, const std::optional<Tensor>& scale,
              const std::optional<Tensor>& bias) {
  const char* op = "expand";
  const Hidden hidden(h, n_streams, op);
  const std::optional<Rows> scales = hidden.parameter(scale, op, "scale");
  const std::optional<Rows> biases = hidden.parameter(bias, op, "bias");
  Tensor x = new_empty(h, shape_with_tail(h, 1, {n_streams, hidden.width}), h.scalar_type());
  cpu::expand_forward({hidden.tokens, hidden.n_streams, hidden.width, hidden.dtype,
                       hidden.rows.view, data_of(scales), data_of(biases), x.mutable_data_ptr()},
                      parallel_for);
  return x;
}

std::tuple<Tensor, Tensor, Tensor> expand_backward(const Tensor& grad_x, const Tensor& h,
                                                   int64_t n_streams,
                                                   const std::optional<Tensor>& scale,
                                                   bool has_bias) {
  const char* op = "expand_backward";
  const Hidden hidden(h, n_streams, op);
  const std::optional<Rows> scales = hidden.parameter(scale, op, "scale");
  const Streams gradient(grad_x, op);
  STD_TORCH_CHECK(gradient.dtype == hidden.dtype && gradient.tokens == hidden.tokens &&
                      gradient.n_streams == n_streams && gradient.width == hidden.width,
                  op, ": grad_x must be [..., n, C] in h's dtype");
  const ScalarType type = coefficient_type(hidden.dtype);
  const auto parameter_gradient = [&](bool wanted) {
    return wanted ? new_empty(h, {n_streams, hidden.width}, type) : new_empty(h, {0}, type);
  };
  Tensor grad_h = new_empty_as(h);
  Tensor grad_scale = parameter_gradient(scale.has_value());
  Tensor grad_bias = parameter_gradient(has_bias);
  const int64_t size = n_streams * hidden.width;
  const int64_t parts = scale || has_bias ? row_partitions(hidden.tokens, size) : 0;
  Tensor partials = new_empty(h, {2 * parts * size}, type);
  cpu::expand_backward(
      {hidden.tokens, hidden.n_streams, hidden.width, hidden.dtype, gradient.view, hidden.rows.view,
       data_of(scales), grad_h.mutable_data_ptr(), scale ? grad_scale.mutable_data_ptr() : nullptr,
       has_bias ? grad_bias.mutable_data_ptr() : nullptr, partials.mutable_data_ptr()},
      parallel_for);
  return {grad_h, grad_scale, grad_bias};
}

}  // namespace
}  // namespace hyperstreams::torch_binding

STABLE_TORCH_LIBRARY_FRAGMENT(hyperstreams, m) {
  m.def("_expand(Tensor h, int n_streams, Tensor? scale, Tensor? bias) -> Tensor");
  m.def(
      "_expand_backward(Tensor grad_x, Tensor h, int n_streams, Tensor? scale, bool has_bias) -> "
      "(Tensor grad_h, Tensor grad_scale, Tensor grad_bias)");
}

STABLE_TORCH_LIBRARY_IMPL(hyperstreams, CPU, m) {
  m.impl("_expand", TORCH_BOX(&hyperstreams::torch_binding::expand));
  m.impl("_expand_backward", TORCH_BOX(&hyperstreams::torch_binding::expand_backward));
}
