// Binding of mix_write (see the contract hyperstreams/mix_write.h).
#include "hyperstreams/mix_write.h"

#include <tuple>

#include "mix_write_inputs.h"

namespace hyperstreams::torch_binding {
namespace {

Tensor mix_write(const Tensor& x, const Tensor& y, const std::optional<Tensor>& h_res,
                 const Tensor& h_post, const std::optional<Tensor>& bias) {
  const MixWriteInputs in(x, y, h_res, h_post, bias, "mix_write");
  Tensor x_out = new_empty_as(x);
  cpu::mix_write_forward(
      {in.x.tokens, in.x.n_streams, in.x.width, in.x.dtype, in.y_dtype, in.x.view, in.y.view,
       in.h_res_view(), in.h_post.view, in.bias_data(), x_out.mutable_data_ptr()},
      parallel_for);
  return x_out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> mix_write_backward(
    const Tensor& grad_out, const Tensor& x, const Tensor& y, const std::optional<Tensor>& h_res,
    const Tensor& h_post, const std::optional<Tensor>& bias) {
  const char* op = "mix_write_backward";
  const MixWriteInputs in(x, y, h_res, h_post, bias, op);
  const Streams gradient(grad_out, op);
  const int n = in.x.n_streams;
  STD_TORCH_CHECK(gradient.dtype == in.x.dtype && gradient.tokens == in.x.tokens &&
                      gradient.n_streams == n && gradient.width == in.x.width,
                  op, ": grad_out must have the shape and dtype of x");
  const ScalarType type = coefficient_type(in.x.dtype);
  const auto gradient_of = [&](const std::optional<Tensor>& input) {
    return input ? new_empty_as(*input) : new_empty(x, {0}, type);
  };
  Tensor grad_x = new_empty_as(x);
  Tensor grad_y = new_empty_as(y);
  Tensor grad_h_res = gradient_of(h_res);
  Tensor grad_h_post = new_empty_as(h_post);
  Tensor grad_bias = gradient_of(bias);
  const int64_t parts = row_partitions(in.x.tokens, in.x.width);
  Tensor partials = new_empty(x, {parts * (n * n + n)}, ScalarType::Double);
  Tensor bias_partials = new_empty(x, {bias ? parts * in.x.width : 0}, type);
  cpu::mix_write_backward(
      {in.x.tokens, n, in.x.width, in.x.dtype, in.y_dtype, gradient.view, in.x.view, in.y.view,
       in.h_res_view(), in.h_post.view, in.bias_data(), grad_x.mutable_data_ptr(),
       grad_y.mutable_data_ptr(), grad_h_res.mutable_data_ptr(), grad_h_post.mutable_data_ptr(),
       grad_bias.mutable_data_ptr(), static_cast<double*>(partials.mutable_data_ptr()),
       bias_partials.mutable_data_ptr()},
      parallel_for);
  return {grad_x, grad_y, grad_h_res, grad_h_post, grad_bias};
}

}  // namespace
}  // namespace hyperstreams::torch_binding

STABLE_TORCH_LIBRARY_FRAGMENT(hyperstreams, m) {
  m.def("_mix_write(Tensor x, Tensor y, Tensor? h_res, Tensor h_post, Tensor? bias) -> Tensor");
  m.def(
      "_mix_write_backward(Tensor grad_out, Tensor x, Tensor y, Tensor? h_res, Tensor h_post, "
      "Tensor? bias) -> (Tensor grad_x, Tensor grad_y, Tensor grad_h_res, Tensor grad_h_post, "
      "Tensor grad_bias)");
}

STABLE_TORCH_LIBRARY_IMPL(hyperstreams, CPU, m) {
  m.impl("_mix_write", TORCH_BOX(&hyperstreams::torch_binding::mix_write));
  m.impl("_mix_write_backward", TORCH_BOX(&hyperstreams::torch_binding::mix_write_backward));
}
