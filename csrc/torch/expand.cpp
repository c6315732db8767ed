// Binding of expand (see the contract hyperstreams/expand.h).
#include "hyperstreams/expand.h"

#include "expand_tensors.h"

namespace hyperstreams::torch_binding {
namespace {

Tensor expand(const Tensor& h, int64_t n_streams, const std::optional<Tensor>& scale,
              const std::optional<Tensor>& bias) {
  ExpandTensors tensors(h, n_streams, scale, bias, "expand");
  cpu::expand_forward(tensors.args(), parallel_for);
  return tensors.x;
}

std::tuple<Tensor, Tensor, Tensor> expand_backward(const Tensor& grad_x, const Tensor& h,
                                                   int64_t n_streams,
                                                   const std::optional<Tensor>& scale,
                                                   bool has_bias) {
  const char* op = "expand_backward";
  const HiddenRows hidden(h, n_streams, op);
  const int64_t parts = row_partitions(hidden.tokens, hidden.size());
  ExpandGradients gradients(hidden, grad_x, h, scale, has_bias, parts, op);
  cpu::expand_backward(gradients.args(), parallel_for);
  return gradients.all();
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
