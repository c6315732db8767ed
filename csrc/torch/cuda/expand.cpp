// CUDA implementation of the torch ops of expand; their schemas are registered with the CPU ops.
#include "../expand_tensors.h"
#include "device.h"
#include "hyperstreams/plan.h"

namespace hyperstreams::torch_binding {
namespace {

Tensor expand(const Tensor& h, int64_t n_streams, const std::optional<Tensor>& scale,
              const std::optional<Tensor>& bias) {
  const char* op = "expand";
  const OnDevice device(h, op);
  if (scale) device.require(*scale, op, "scale");
  if (bias) device.require(*bias, op, "bias");
  ExpandTensors tensors(h, n_streams, scale, bias, op);
  check_status(cuda::expand_forward(tensors.args(), device.stream()), op);
  return tensors.x;
}

std::tuple<Tensor, Tensor, Tensor> expand_backward(const Tensor& grad_x, const Tensor& h,
                                                   int64_t n_streams,
                                                   const std::optional<Tensor>& scale,
                                                   bool has_bias) {
  const char* op = "expand_backward";
  const OnDevice device(grad_x, op);
  device.require(h, op, "h");
  if (scale) device.require(*scale, op, "scale");
  const HiddenRows hidden(h, n_streams, op);
  const int64_t parts =
      cuda::plan_expand(hidden.tokens, hidden.n_streams, hidden.width, hidden.dtype, 1).sums.parts;
  ExpandGradients gradients(hidden, grad_x, h, scale, has_bias, parts, op);
  check_status(cuda::expand_backward(gradients.args(), device.stream()), op);
  return gradients.all();
}

}  // namespace
}  // namespace hyperstreams::torch_binding

STABLE_TORCH_LIBRARY_IMPL(hyperstreams, CUDA, m) {
  m.impl("_expand", TORCH_BOX(&hyperstreams::torch_binding::expand));
  m.impl("_expand_backward", TORCH_BOX(&hyperstreams::torch_binding::expand_backward));
}
