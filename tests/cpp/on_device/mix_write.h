#pragma once

#include "device_call.h"
#include "hyperstreams/mix_write.h"
#include "hyperstreams/plan.h"

namespace hyperstreams::cuda::testing {

/// Replaces the operands by their copies on the device; scratch stays.
inline void move(DeviceCall& call, MixWriteArgs& args) {
  const int64_t tokens = args.tokens, width = args.width;
  const int n = args.n_streams;
  args.x = call.input(args.x, tokens, n, width, args.dtype);
  args.y = call.input(args.y, tokens, width, args.y_dtype);
  args.h_res = call.input(args.h_res, tokens, n * n, DType::kFloat32);
  args.h_post = call.input(args.h_post, tokens, n, DType::kFloat32);
  args.bias = call.input(args.bias, width, DType::kFloat32);
  args.x_out = call.output(args.x_out, tokens * n * width, args.dtype);
}

inline void move(DeviceCall& call, MixWriteBackwardArgs& args) {
  const int64_t tokens = args.tokens, width = args.width;
  const int n = args.n_streams;
  const int64_t mixes = !args.h_res.data ? 0 : args.h_res.token_stride == 0 ? 1 : tokens;
  const int64_t writes = args.h_post.token_stride == 0 ? 1 : tokens;
  args.grad_out = call.input(args.grad_out, tokens, n, width, args.dtype);
  args.x = call.input(args.x, tokens, n, width, args.dtype);
  args.y = call.input(args.y, tokens, width, args.y_dtype);
  args.h_res = call.input(args.h_res, tokens, n * n, DType::kFloat32);
  args.h_post = call.input(args.h_post, tokens, n, DType::kFloat32);
  args.grad_bias = call.output(args.grad_bias, args.bias ? width : 0, DType::kFloat32);
  args.bias = call.input(args.bias, width, DType::kFloat32);
  args.grad_x = call.output(args.grad_x, tokens * n * width, args.dtype);
  args.grad_y = call.output(args.grad_y, tokens * width, args.y_dtype);
  args.grad_h_res = call.output(args.grad_h_res, mixes * n * n, DType::kFloat32);
  args.grad_h_post = call.output(args.grad_h_post, writes * n, DType::kFloat32);
}

inline Status mix_write_forward(MixWriteArgs args, Stream) {
  if (args.dtype == DType::kFloat64 || args.y_dtype == DType::kFloat64) {
    return cuda::mix_write_forward(args, nullptr);
  }
  DeviceCall call;
  move(call, args);
  return call.run([&](Stream stream) { return cuda::mix_write_forward(args, stream); });
}

inline Status mix_write_backward(MixWriteBackwardArgs args, Stream) {
  if (args.dtype == DType::kFloat64 || args.y_dtype == DType::kFloat64) {
    return cuda::mix_write_backward(args, nullptr);
  }
  const bool static_mix = args.h_res.data && args.h_res.token_stride == 0;
  const bool is_static = static_mix || args.h_post.token_stride == 0;
  const MixWritePlan plan = plan_mix_write(args.tokens, args.width, args.dtype, 1, is_static);
  const int n = args.n_streams;
  const int64_t bias_partials = args.bias ? plan.bias.parts * args.width : 0;
  DeviceCall call;
  move(call, args);
  args.partials = call.scratch(args.partials, plan.backward.partials * (n * n + n));
  args.bias_partials = call.scratch(static_cast<float*>(args.bias_partials), bias_partials);
  return call.run([&](Stream stream) { return cuda::mix_write_backward(args, stream); });
}

}  // namespace hyperstreams::cuda::testing
