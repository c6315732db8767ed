// CUDA implementation of the torch ops of mix_write; their schemas are registered with the CPU ops.
#include "hyperstreams/mix_write.h"

#include "../mix_write_tensors.h"
#include "device.h"
#include "hyperstreams/plan.h"

namespace hyperstreams::torch_binding {
namespace {

/// Checks that everything is on the device of x.
void require_inputs(const OnDevice& device, const char* op, const Tensor& y,
                    const std::optional<Tensor>& h_res, const Tensor& h_post,
                    const std::optional<Tensor>& bias) {
  device.require(y, op, "y");
  if (h_res) device.require(*h_res, op, "h_res");
  device.require(h_post, op, "h_post");
  if (bias) device.require(*bias, op, "bias");
}

Tensor mix_write(const Tensor& x, const Tensor& y, const std::optional<Tensor>& h_res,
                 const Tensor& h_post, const std::optional<Tensor>& bias) {
  const char* op = "mix_write";
  const OnDevice device(x, op);
  require_inputs(device, op, y, h_res, h_post, bias);
  const MixWriteInputs in(x, y, h_res, h_post, bias, op);
  Tensor x_out = new_empty_as(x);
  check_status(cuda::mix_write_forward(in.args(x_out), device.stream()), op);
  return x_out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> mix_write_backward(
    const Tensor& grad_out, const Tensor& x, const Tensor& y, const std::optional<Tensor>& h_res,
    const Tensor& h_post, const std::optional<Tensor>& bias) {
  const char* op = "mix_write_backward";
  const OnDevice device(x, op);
  require_inputs(device, op, y, h_res, h_post, bias);
  device.require(grad_out, op, "grad_out");
  const MixWriteInputs in(x, y, h_res, h_post, bias, op);
  const cuda::MixWritePlan plan =
      cuda::plan_mix_write(in.x.tokens, in.x.width, in.x.dtype, 1, in.has_static());
  MixWriteGradients gradients(in, grad_out, x, y, h_res, h_post, bias, plan.backward.partials,
                              plan.bias.parts, op);
  check_status(cuda::mix_write_backward(gradients.args(), device.stream()), op);
  return gradients.all();
}

}  // namespace
}  // namespace hyperstreams::torch_binding

STABLE_TORCH_LIBRARY_IMPL(hyperstreams, CUDA, m) {
  m.impl("_mix_write", TORCH_BOX(&hyperstreams::torch_binding::mix_write));
  m.impl("_mix_write_backward", TORCH_BOX(&hyperstreams::torch_binding::mix_write_backward));
}
