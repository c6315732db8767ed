#pragma once

#include "device_call.h"
#include "hyperstreams/plan.h"
#include "hyperstreams/read.h"

namespace hyperstreams::cuda::testing {

/// Replaces the operands by their copies on the device; scratch stays.
inline void move(DeviceCall& call, ReadArgs& args) {
  args.x = call.input(args.x, args.tokens, args.n_streams, args.width, args.dtype);
  args.h_pre = call.input(args.h_pre, args.tokens, args.n_streams, DType::kFloat32);
  args.u = call.output(args.u, args.tokens * args.width, args.dtype);
}

inline void move(DeviceCall& call, ReadBackwardArgs& args) {
  const int64_t tokens = args.tokens, width = args.width;
  const int n = args.n_streams;
  const bool is_static = args.h_pre.token_stride == 0;
  args.x = call.input(args.x, tokens, n, width, args.dtype);
  args.h_pre = call.input(args.h_pre, tokens, n, DType::kFloat32);
  args.grad_u = call.input(args.grad_u, tokens, width, args.dtype);
  args.grad_x = call.output(args.grad_x, tokens * n * width, args.dtype);
  args.grad_h_pre = call.output(args.grad_h_pre, is_static ? n : tokens * n, DType::kFloat32);
}

inline Status read_forward(ReadArgs args, Stream) {
  if (args.dtype == DType::kFloat64) return cuda::read_forward(args, nullptr);
  DeviceCall call;
  move(call, args);
  return call.run([&](Stream stream) { return cuda::read_forward(args, stream); });
}

inline Status read_backward(ReadBackwardArgs args, Stream) {
  if (args.dtype == DType::kFloat64) return cuda::read_backward(args, nullptr);
  const bool is_static = args.h_pre.token_stride == 0;
  const OwnerPlan plan = plan_read(args.tokens, args.width, args.dtype, 1, is_static).backward;
  DeviceCall call;
  move(call, args);
  args.partials = call.scratch(args.partials, plan.partials * args.n_streams);
  return call.run([&](Stream stream) { return cuda::read_backward(args, stream); });
}

}  // namespace hyperstreams::cuda::testing
