// Torch ops of read; the contract stands in hyperstreams/read.h.
#include "hyperstreams/read.h"

#include <tuple>

#include "tensors.h"

namespace hyperstreams::torch_binding {
namespace {

Tensor read(const Tensor& x, const Tensor& h_pre) {
  const char* op = "read";
  const Streams streams(x, op);
  const Rows weights(h_pre, 1, streams.tokens, streams.n_streams, coefficient_type(streams.dtype),
                     op, "h_pre");
  Tensor u = new_empty(x, shape_with_tail(x, 2, {streams.width}), x.scalar_type());
  cpu::read_forward({streams.tokens, streams.n_streams, streams.width, streams.dtype, streams.view,
                     weights.view, u.mutable_data_ptr()},
                    parallel_for);
  return u;
}

std::tuple<Tensor, Tensor> read_backward(const Tensor& grad_u, const Tensor& x,
                                         const Tensor& h_pre) {
  const char* op = "read_backward";
  const Streams streams(x, op);
  const int n = streams.n_streams;
  const Rows weights(h_pre, 1, streams.tokens, n, coefficient_type(streams.dtype), op, "h_pre");
  const Rows gradient(grad_u, 1, streams.tokens, streams.width, x.scalar_type(), op, "grad_u");
  Tensor grad_x = new_empty_as(x);
  Tensor grad_h_pre = new_empty_as(h_pre);
  const int64_t parts = weights.is_static ? token_partitions(streams.tokens) : 0;
  const Scratch partials(x, parts * n, ScalarType::Double);
  cpu::read_backward(
      {streams.tokens, n, streams.width, streams.dtype, streams.view, weights.view, gradient.view,
       grad_x.mutable_data_ptr(), grad_h_pre.mutable_data_ptr(), partials.doubles()},
      parallel_for);
  return {grad_x, grad_h_pre};
}

}  // namespace
}  // namespace hyperstreams::torch_binding

STABLE_TORCH_LIBRARY_FRAGMENT(hyperstreams, m) {
  m.def("_read(Tensor x, Tensor h_pre) -> Tensor");
  m.def("_read_backward(Tensor grad_u, Tensor x, Tensor h_pre) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(hyperstreams, CPU, m) {
  m.impl("_read", TORCH_BOX(&hyperstreams::torch_binding::read));
  m.impl("_read_backward", TORCH_BOX(&hyperstreams::torch_binding::read_backward));
}
