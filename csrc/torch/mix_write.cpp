// Binding of mix_write (see the contract hyperstreams/mix_write.h).
#include "hyperstreams/mix_write.h"

#include "mix_write_tensors.h"

namespace hyperstreams::torch_binding {
namespace {

Tensor mix_write(const Tensor& x, const Tensor& y, const std::optional<Tensor>& h_res,
                 const Tensor& h_post, const std::optional<Tensor>& bias) {
  const MixWriteInputs in(x, y, h_res, h_post, bias, "mix_write");
  Tensor x_out = new_empty_as(x);
  cpu::mix_write_forward(in.args(x_out), parallel_for);
  return x_out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> mix_write_backward(
    const Tensor& grad_out, const Tensor& x, const Tensor& y, const std::optional<Tensor>& h_res,
    const Tensor& h_post, const std::optional<Tensor>& bias) {
  const char* op = "mix_write_backward";
  const MixWriteInputs in(x, y, h_res, h_post, bias, op);
  const int64_t parts = row_partitions(in.x.tokens, in.x.width);
  MixWriteGradients gradients(in, grad_out, x, y, h_res, h_post, bias, parts, parts, op);
  cpu::mix_write_backward(gradients.args(), parallel_for);
  return gradients.all();
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
