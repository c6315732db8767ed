#pragma once

#include <cstddef>

#include "coefficients.h"
#include "hyperstreams/boundary.h"
#include "kernels/cuda/boundary_plan.h"
#include "mix_write.h"
#include "project.h"
#include "read.h"

namespace hyperstreams::cuda::testing {

template <class Read>
BoundaryPlan plan_of_boundary(const Read& read, const CoefficientSettings* next) {
  return plan_boundary(boundary_shape(read.tokens, read.n_streams, read.width, read.dtype, next),
                       1);
}

/// Moves the operands, and runs forward(args, stream) on them with so much scratch. X', the logits
/// and h_pre are outputs of one part and inputs of another: the same operand.
template <class Forward>
Status run_boundary(BoundaryArgs args, int64_t scratch, const Forward& forward) {
  DeviceCall call;
  MixWriteArgs write;
  ProjectArgs project;
  CoefficientsArgs coefficients;
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
  return call.run([&](Stream stream) { return forward(args, stream); });
}

inline Status boundary_forward(const BoundaryArgs& args, Stream) {
  if (args.read.dtype == DType::kFloat64 ||
      (args.write && args.write->y_dtype == DType::kFloat64)) {
    return cuda::boundary_forward(args, nullptr);
  }
  const CoefficientSettings* next = args.coefficients ? &args.coefficients->settings : nullptr;
  return run_boundary(args, plan_of_boundary(args.read, next).forward.size,
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

inline Status boundary_backward(BoundaryBackwardArgs args, Stream) {
  if (args.read.dtype == DType::kFloat64 ||
      (args.write && args.write->y_dtype == DType::kFloat64)) {
    return cuda::boundary_backward(args, nullptr);
  }
  const CoefficientSettings* next = args.coefficients ? &args.coefficients->settings : nullptr;
  const int64_t scratch = plan_of_boundary(args.read, next).backward.size;
  DeviceCall call;
  MixWriteBackwardArgs write;
  ProjectBackwardArgs project;
  CoefficientsBackwardArgs coefficients;
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
  return call.run([&](Stream stream) { return cuda::boundary_backward(args, stream); });
}

}  // namespace hyperstreams::cuda::testing
