#pragma once

#include <cstddef>
#include <type_traits>

#include "coefficients.h"
#include "hyperstreams/boundary.h"
#include "kernels/cuda/boundary_plan.h"
#include "mix_write.h"
#include "project.h"
#include "read.h"

namespace hyperstreams::cuda::testing {

template <class Args>
BoundaryPlan plan_of_boundary(const Args& args) {
  const auto& read = args.read;
  const CoefficientSettings* next = args.coefficients ? &args.coefficients->settings : nullptr;
  return plan_boundary(boundary_shape(read.tokens, read.n_streams, read.width, read.dtype, next,
                                      block_shared_limit()),
                       1);
}

/// Moves the operands of either pass, and runs launch(args, stream) on them with so much scratch.
/// X', the logits and h_pre are outputs of one part and inputs of another: the same operand.
template <class Args, class Launch>
Status run_boundary(Args args, int64_t scratch, const Launch& launch) {
  DeviceCall call;
  std::decay_t<decltype(*args.write)> write;
  std::decay_t<decltype(*args.project)> project;
  std::decay_t<decltype(*args.coefficients)> coefficients;
  if (args.write) {
    write = *args.write;
    move(call, write);
    args.write = &write;
  }
  if (args.project) {
    project = *args.project;
    move(call, project);
    coefficients = *args.coefficients;
    move(call, coefficients);
    args.project = &project;
    args.coefficients = &coefficients;
  }
  move(call, args.read);
  args.workspace = call.scratch(args.workspace, scratch);
  return call.run([&](Stream stream) { return launch(args, stream); });
}

/// What the kernels refuse before they touch memory.
template <class Args>
bool has_float64(const Args& args) {
  return args.read.dtype == DType::kFloat64 ||
         (args.write && args.write->y_dtype == DType::kFloat64);
}

inline Status boundary_forward(const BoundaryArgs& args, Stream) {
  if (has_float64(args)) return cuda::boundary_forward(args, nullptr);
  return run_boundary(args, plan_of_boundary(args).forward.size,
                      [](const BoundaryArgs& moved, Stream stream) {
                        return cuda::boundary_forward(moved, stream);
                      });
}

/// nullptr_t: as in project.h.
inline Status boundary_forward(const BoundaryArgs& args, const BoundaryPlan& plan, std::nullptr_t) {
  return run_boundary(args, plan.forward.size, [&](const BoundaryArgs& moved, Stream stream) {
    return cuda::boundary_forward(moved, plan, stream);
  });
}

inline Status boundary_backward(const BoundaryBackwardArgs& args, Stream) {
  if (has_float64(args)) return cuda::boundary_backward(args, nullptr);
  return run_boundary(args, plan_of_boundary(args).backward.size,
                      [](const BoundaryBackwardArgs& moved, Stream stream) {
                        return cuda::boundary_backward(moved, stream);
                      });
}

}  // namespace hyperstreams::cuda::testing
