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

/// Moves the operands, and runs launch(args, stream) on them with so much scratch.
template <class Args, class Launch>
Status run_project(Args args, int64_t scratch, const Launch& launch) {
  DeviceCall call;
  move(call, args);
  args.workspace = call.scratch(static_cast<float*>(args.workspace), scratch);
  return call.run([&](Stream stream) { return launch(args, stream); });
}

inline Status project_forward(const ProjectArgs& args, Stream) {
  if (args.shape.dtype == DType::kFloat64) return cuda::project_forward(args, nullptr);
  return run_project(
      args, plan_project(args.shape, 1).workspace,
      [](const auto& on, Stream stream) { return cuda::project_forward(on, stream); });
}

/// nullptr_t: preferred to the entry point itself, which the plan's namespace brings in too.
inline Status project_forward(const ProjectArgs& args, const ProjectPlan& plan, std::nullptr_t) {
  return run_project(args, plan.workspace, [&](const auto& on, Stream stream) {
    return cuda::project_forward(on, plan, stream);
  });
}

inline Status project_backward(const ProjectBackwardArgs& args, Stream) {
  if (args.shape.dtype == DType::kFloat64) return cuda::project_backward(args, nullptr);
  return run_project(
      args, plan_project_backward(args.shape, 1).workspace,
      [](const auto& on, Stream stream) { return cuda::project_backward(on, stream); });
}

}  // namespace hyperstreams::cuda::testing
