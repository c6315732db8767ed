// boundary: the write of one site fused with the coefficients and the read of the next.
//
//   X'               = mix_write(X, y, h_res, h_post, bias)          (X itself without a write)
//   logits, inv_rms  = project(X', phi, norm_weight)                 (of X' as stored)
//   h_pre', h_post', h_res' = coefficients(logits, inv_rms, alpha, bias')
//   u'               = read(X', weights), the weights h_pre' or given ones
//
// The definitions stand in the contracts of these ops, whose arguments are used here. The forward
// runs them on tiles of tokens that stay in the cache: X is read once, X' is written once, with the
// bits of the single ops. Without a controller (static coefficients) only the write and the read
// are left, with given weights.
//
// The backward rebuilds X' from X and y with the forward's rounding. With the gradient
//
//   G[t, j, c] = grad_x'[t, j, c] + weights[t, j] grad_u[t, c]
//              + sum_k grad_logits[t, k] W[k, d] + s[t] X'[t, j, c],        d = j C + c,
//
// kept in the accumulation type and never stored, the gradients of X, y, h_res, h_post and bias are
// mix_write's with grad_out = G. Parameter gradients are summed within token partitions whose count
// depends on the shape alone, then over partitions in order.
#pragma once

#include "hyperstreams/coefficients.h"
#include "hyperstreams/cuda.h"
#include "hyperstreams/mix_write.h"
#include "hyperstreams/project.h"
#include "hyperstreams/read.h"

namespace hyperstreams {

/// The parts agree in tokens, n_streams, width and dtype. Coefficients per stream: project counts
/// every stream as a token of one stream, [tokens * n, 1, C], and X' is contiguous.
struct BoundaryArgs {
  const MixWriteArgs* write;             // null: no pending write
  const ProjectArgs* project;            // null: no controller. x: X'
  const CoefficientsArgs* coefficients;  // null exactly when project is. logits, inv_rms: project's
  ReadArgs read;                         // x: X'. h_pre: coefficients' or given
  // Scratch, on CUDA alone and instead of the parts' own: plan_boundary(...).forward.size floats,
  // 16-byte aligned.
  float* workspace = nullptr;
};

struct BoundaryBackwardArgs {
  const MixWriteBackwardArgs*
      write;  // null: no pending write. grad_out: grad_x', all else as there
  // null: no controller. x, grad_logits, grad_inv_rms and grad_x are not used.
  const ProjectBackwardArgs* project;
  // null exactly when project is. grad_h_pre is beside what the read adds; grad_logits and
  // grad_inv_rms are not used; partials [boundary_partitions, 2 + mix_groups + K].
  const CoefficientsBackwardArgs* coefficients;
  // x: X' when write is null, else unused. grad_x: out when write is null (of X', rounded once),
  // else unused. grad_h_pre: out where the weights were given, null where they are the
  // coefficients' own. partials [boundary_partitions, n] for static given weights.
  ReadBackwardArgs read;
  // Scratch, on CUDA alone and instead of the parts' own (no grad_logits, grad_inv_rms, partials):
  // plan_boundary(...).backward.size floats, 16-byte aligned.
  float* workspace = nullptr;
};

/// Partial sums over tokens of all parameter gradients; write's and read's scratch has as many.
constexpr int64_t boundary_partitions(const ProjectShape* project, int64_t tokens, int64_t width) {
  return project ? project_partitions(*project) : row_partitions(tokens, width);
}

namespace cpu {

/// Traffic per token: reads (n + 1) C elements, writes (n + 1) C, and the coefficients.
void boundary_forward(const BoundaryArgs& args, ParallelFor parallel_for);

/// Traffic per token: reads (2n + 2) C elements, writes (n + 1) C, and the coefficients.
void boundary_backward(const BoundaryBackwardArgs& args, ParallelFor parallel_for);

}  // namespace cpu

namespace cuda {

/// Queue boundary on the stream; float32, bfloat16 and float16 streams. Up to n = 4 and 32 logits
/// (see plan_boundary) X' is written once and read once more by the forward: (3n + 2) C elements
/// per token, backward (4n + 5) C; X' has the bits of mix_write. Otherwise the ops run one by one.
Status boundary_forward(const BoundaryArgs& args, Stream stream);
Status boundary_backward(const BoundaryBackwardArgs& args, Stream stream);

}  // namespace cuda
}  // namespace hyperstreams
