#pragma once

#include "device_call.h"
#include "hyperstreams/expand.h"
#include "hyperstreams/plan.h"

namespace hyperstreams::cuda::testing {

inline Status expand_forward(ExpandArgs args, Stream) {
  if (args.dtype == DType::kFloat64) return cuda::expand_forward(args, nullptr);
  const int64_t size = args.n_streams * args.width;
  DeviceCall call;
  args.h = call.input(args.h, args.tokens, args.width, args.dtype);
  args.scale = call.input(args.scale, size, DType::kFloat32);
  args.bias = call.input(args.bias, size, DType::kFloat32);
  args.x = call.output(args.x, args.tokens * size, args.dtype);
  return call.run([&](Stream stream) { return cuda::expand_forward(args, stream); });
}

inline Status expand_backward(ExpandBackwardArgs args, Stream) {
  if (args.dtype == DType::kFloat64) return cuda::expand_backward(args, nullptr);
  const int64_t tokens = args.tokens, width = args.width, size = args.n_streams * width;
  const bool has_sums = args.grad_scale || args.grad_bias;
  const int64_t parts = plan_expand(tokens, args.n_streams, width, args.dtype, 1).sums.parts;
  DeviceCall call;
  args.grad_x = call.input(args.grad_x, tokens, args.n_streams, width, args.dtype);
  args.h = call.input(args.h, tokens, width, args.dtype);
  args.scale = call.input(args.scale, size, DType::kFloat32);
  args.grad_h = call.output(args.grad_h, tokens * width, args.dtype);
  args.grad_scale = call.output(args.grad_scale, size, DType::kFloat32);
  args.grad_bias = call.output(args.grad_bias, size, DType::kFloat32);
  args.partials = call.scratch(static_cast<float*>(args.partials), has_sums ? parts * 2 * size : 0);
  return call.run([&](Stream stream) { return cuda::expand_backward(args, stream); });
}

}  // namespace hyperstreams::cuda::testing
