// CUDA implementation of the torch ops of read; their schemas are registered with the CPU ops.
#include "hyperstreams/read.h"

#include <tuple>

#include "device.h"
#include "hyperstreams/plan.h"

namespace hyperstreams::torch_binding {
namespace {

Tensor read(const Tensor& x, const Tensor& h_pre) {
  const char* op = "read";
  const OnDevice device(x, op);
  const Streams streams(x, op);
  device.require(h_pre, op, "h_pre");
  const Rows weights(h_pre, 1, streams.tokens, streams.n_streams, coefficient_type(streams.dtype),
                     op, "h_pre");
  Tensor u = new_empty(x, shape_with_tail(x, 2, {streams.width}), x.scalar_type());
  check_status(cuda::read_forward({streams.tokens, streams.n_streams, streams.width, streams.dtype,
                                   streams.view, weights.view, u.mutable_data_ptr()},
                                  device.stream()),
               op);
  return u;
}

std::tuple<Tensor, Tensor> read_backward(const Tensor& grad_u, const Tensor& x,
                                         const Tensor& h_pre) {
  const char* op = "read_backward";
  const OnDevice device(x, op);
  const Streams streams(x, op);
  device.require(h_pre, op, "h_pre");
  device.require(grad_u, op, "grad_u");
  const int n = streams.n_streams;
  const Rows weights(h_pre, 1, streams.tokens, n, coefficient_type(streams.dtype), op, "h_pre");
  const Rows gradient(grad_u, 1, streams.tokens, streams.width, x.scalar_type(), op, "grad_u");
  Tensor grad_x = new_empty_as(x);
  Tensor grad_h_pre = new_empty_as(h_pre);
  const int64_t parts =
      cuda::plan_read(streams.tokens, streams.width, streams.dtype, 1, weights.is_static)
          .backward.partials;
  const Scratch partials(x, parts * n, ScalarType::Double);
  check_status(cuda::read_backward({streams.tokens, n, streams.width, streams.dtype, streams.view,
                                    weights.view, gradient.view, grad_x.mutable_data_ptr(),
                                    grad_h_pre.mutable_data_ptr(), partials.doubles()},
                                   device.stream()),
               op);
  return {grad_x, grad_h_pre};
}

}  // namespace
}  // namespace hyperstreams::torch_binding

STABLE_TORCH_LIBRARY_IMPL(hyperstreams, CUDA, m) {
  m.impl("_read", TORCH_BOX(&hyperstreams::torch_binding::read));
  m.impl("_read_backward", TORCH_BOX(&hyperstreams::torch_binding::read_backward));
}
