#pragma once

#include "device_call.h"
#include "hyperstreams/mix_write.h"
#include "hyperstreams/plan.h"

namespace hyperstreams::cuda::testing {

inline Status mix_write_forward(MixWriteArgs args, Stream) {
  if (args.dtype == DType::kFloat64 || args.y_dtype == DType::kFloat64) {
    return cuda::mix_write_forward(args, nullptr);
  }
  const int64_t tokens = args.tokens, width = args.width;
  const int n = args.n_streams;
  DeviceCall call;
  args.x = call.input(args.x, tokens, n, width, args.dtype);
  args.y = call.input(args.y, tokens, width, args.y_dtype);
  args.h_res = call.input(args.h_res, tokens, n * n, DType::kFloat32);
  args.h_post = call.input(args.h_post, tokens, n, DType::kFloat32);
  args.bias = call.input(args.bias, width, DType::kFloat32);
  args.x_out = call.output(args.x_out, tokens * n * width, args.dtype);
  return call.run([&](Stream stream) { return cuda::mix_write_forward(args, stream); });
}

inline Status mix_write_backward(MixWriteBackwardArgs args, Stream) {
  if (args.dtype == DType::kFloat64 || args.y_dtype == DType::kFloat64) {
    return cuda::mix_write_backward(args, nullptr);
  }
  const int64_t tokens = args.tokens, width = args.width;
  const int n = args.n_streams;
  const bool has_mix = args.h_res.data, has_bias = args.bias;
  const bool static_mix = args.h_res.token_stride == 0,
             static_write = args.h_post.token_stride == 0;
  const bool is_static = (has_mix && static_mix) || static_write;
  const MixWritePlan plan = plan_mix_write(tokens, width, args.dtype, 1, is_static);
  DeviceCall call;
  args.grad_out = call.input(args.grad_out, tokens, n, width, args.dtype);
  args.x = call.input(args.x, tokens, n, width, args.dtype);
  args.y = call.input(args.y, tokens, width, args.y_dtype);
  args.h_res = call.input(args.h_res, tokens, n * n, DType::kFloat32);
  args.h_post = call.input(args.h_post, tokens, n, DType::kFloat32);
  args.bias = call.input(args.bias, width, DType::kFloat32);
  args.grad_x = call.output(args.grad_x, tokens * n * width, args.dtype);
  args.grad_y = call.output(args.grad_y, tokens * width, args.y_dtype);
  const int64_t mixes = !has_mix ? 0 : static_mix ? 1 : tokens;
  args.grad_h_res = call.output(args.grad_h_res, mixes * n * n, DType::kFloat32);
  args.grad_h_post =
      call.output(args.grad_h_post, (static_write ? 1 : tokens) * n, DType::kFloat32);
  args.grad_bias = call.output(args.grad_bias, has_bias ? width : 0, DType::kFloat32);
  args.partials = call.scratch(args.partials, plan.backward.partials * (n * n + n));
  args.bias_partials =
      call.scratch(static_cast<float*>(args.bias_partials), has_bias ? plan.bias.parts * width : 0);
  return call.run([&](Stream stream) { return cuda::mix_write_backward(args, stream); });
}

}  // namespace hyperstreams::cuda::testing
