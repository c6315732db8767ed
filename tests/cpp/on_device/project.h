#pragma once

#include <cstddef>

#include "device_call.h"
#include "kernels/cuda/project_plan.h"

namespace hyperstreams::cuda::testing {

/// Replaces the operands by their copies on the device; scratch stays.
inline void move(DeviceCall& call, ProjectArgs& args) {
  const ProjectShape& s = args.shape;
  const DType type = DType::kFloat32;
  args.x = call.input(args.x, s.tokens, s.n_streams, s.width, s.dtype);
  args.phi = call.input(args.phi, s.n_logits * s.features(), type);
  args.norm_weight = call.input(args.norm_weight, s.features(), type);
  args.logits = call.output(args.logits, s.tokens * s.n_logits, type);
  args.inv_rms = call.output(args.inv_rms, s.tokens, type);
}

inline void move(DeviceCall& call, ProjectBackwardArgs& args) {
  const ProjectShape& s = args.shape;
  const DType type = DType::kFloat32;
  args.x = call.input(args.x, s.tokens, s.n_streams, s.width, s.dtype);
  args.phi = call.input(args.phi, s.n_logits * s.features(), type);
  args.norm_weight = call.input(args.norm_weight, s.features(), type);
  args.inv_rms = call.input(args.inv_rms, s.tokens, type);
  args.grad_logits = call.input(args.grad_logits, s.tokens * s.n_logits, type);
  args.grad_inv_rms = call.input(args.grad_inv_rms, s.tokens, type);
  args.grad_x = call.output(args.grad_x, s.tokens * s.features(), s.dtype);
  args.grad_phi = call.output(args.grad_phi, s.n_logits * s.features(), type);
  args.grad_norm_weight = call.output(args.grad_norm_weight, s.features(), type);
}

inline Status project_forward(ProjectArgs args, Stream) {
  if (args.shape.dtype == DType::kFloat64) return cuda::project_forward(args, nullptr);
  const int64_t scratch = plan_project(args.shape, 1).workspace;
  DeviceCall call;
  move(call, args);
  args.workspace = call.scratch(static_cast<float*>(args.workspace), scratch);
  return call.run([&](Stream stream) { return cuda::project_forward(args, stream); });
}

/// nullptr_t: preferred to the entry point itself, which the plan's namespace brings in too.
inline Status project_forward(ProjectArgs args, const ProjectPlan& plan, std::nullptr_t) {
  DeviceCall call;
  move(call, args);
  args.workspace = call.scratch(static_cast<float*>(args.workspace), plan.workspace);
  return call.run([&](Stream stream) { return cuda::project_forward(args, plan, stream); });
}

inline Status project_backward(ProjectBackwardArgs args, Stream) {
  if (args.shape.dtype == DType::kFloat64) return cuda::project_backward(args, nullptr);
  const int64_t scratch = plan_project_backward(args.shape, 1).workspace;
  DeviceCall call;
  move(call, args);
  args.workspace = call.scratch(static_cast<float*>(args.workspace), scratch);
  return call.run([&](Stream stream) { return cuda::project_backward(args, stream); });
}

}  // namespace hyperstreams::cuda::testing
