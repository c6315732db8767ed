// project: the controller's skinny product and the RMS statistic, in one pass over the streams.
//
// With v[t, d], d = i * C + c, the streams of a token laid end to end, D = n C, and
// m[t] = mean_d v[t, d]^2:
//
//   logits[t, k] = sum_d v[t, d] norm_weight[d] phi[k, d]          (not normalised)
//   inv_rms[t]   = 1 / sqrt(m + eps)        eps_position inside
//                | 1 / (sqrt(m) + eps)      outside
//                | 1 / max(sqrt(m), eps)    floor
//
// and its adjoint, with W = norm_weight * phi and s[t] = d inv_rms / d m * 2 / D:
//
//   grad_x[t, d]        = sum_k grad_logits[t, k] W[k, d] + grad_inv_rms[t] s[t] v[t, d]
//   grad_phi[k, d]      = norm_weight[d] sum_t grad_logits[t, k] v[t, d]
//   grad_norm_weight[d] = sum_k phi[k, d] sum_t grad_logits[t, k] v[t, d]
//
// Accumulation is float (double for double streams). A token's outputs have the same bits in every
// batch and at every thread count; parameter gradients are summed over token partitions whose count
// depends on the shape alone. Outputs are contiguous, written completely, and never alias inputs.
#pragma once

#include "hyperstreams/common.h"
#include "hyperstreams/cuda.h"

namespace hyperstreams {

enum class EpsPosition : int { kInside = 0, kOutside = 1, kFloor = 2 };

struct ProjectShape {
  int64_t tokens;
  int n_streams;
  int64_t width;
  int64_t n_logits;  // K >= 1
  DType dtype;       // of the streams

  constexpr int64_t features() const { return n_streams * width; }
};

struct ProjectArgs {
  ProjectShape shape;
  StreamsView x;            // [tokens, n, C]
  const void* phi;          // [K, D] contiguous
  const void* norm_weight;  // [D] or null
  double eps;
  EpsPosition eps_position;
  void* logits;   // out [tokens, K]
  void* inv_rms;  // out [tokens]
  // Scratch of the accumulation type, 16-byte aligned: project_workspace(shape) elements on the
  // CPU, plan_project(...).workspace on CUDA.
  void* workspace;
};

struct ProjectBackwardArgs {
  ProjectShape shape;
  StreamsView x;             // [tokens, n, C]
  const void* phi;           // [K, D] contiguous
  const void* norm_weight;   // [D] or null
  const void* inv_rms;       // [tokens], as the forward returned it
  const void* grad_logits;   // [tokens, K] contiguous
  const void* grad_inv_rms;  // [tokens] contiguous
  double eps;
  EpsPosition eps_position;
  void* grad_x;            // out [tokens, n, C] in the streams' dtype
  void* grad_phi;          // out [K, D]
  void* grad_norm_weight;  // out [D]; null exactly when norm_weight is
  // Scratch as above: project_backward_workspace(shape) elements on the CPU,
  // plan_project_backward(...).workspace on CUDA.
  void* workspace;
};

/// Partial sums of grad_phi: from the shape alone, at most about 32 MiB of them.
constexpr int64_t project_partitions(const ProjectShape& shape) {
  const int64_t bytes = shape.n_logits * shape.features() * 4;
  const int64_t fit = (int64_t{32} << 20) / bytes;
  const int64_t by_memory = fit > 2 ? fit : 2;
  const int64_t by_tokens = (shape.tokens + 255) / 256;
  const int64_t bound = by_memory < 64 ? by_memory : 64;
  return by_tokens < bound ? by_tokens : bound;
}

/// Elements for phi transposed and padded.
constexpr int64_t project_workspace(const ProjectShape& shape) {
  return shape.features() * ((shape.n_logits + 15) / 16 * 16);
}

/// Channels of one block of the backward workspace, which is laid out [blocks, K, channels] so that
/// a block of the weighted phi or of a partial sum is contiguous.
constexpr int64_t kProjectBlock = 64;

constexpr int64_t project_blocks(const ProjectShape& shape) {
  return shape.n_streams * ((shape.width + kProjectBlock - 1) / kProjectBlock);
}

/// Elements for the weighted phi and the partial sums of grad_phi.
constexpr int64_t project_backward_workspace(const ProjectShape& shape) {
  return (project_partitions(shape) + 1) * project_blocks(shape) * shape.n_logits * kProjectBlock;
}

namespace cpu {

/// Traffic per token: reads n C elements, writes K + 1. 2 K n C FLOP.
void project_forward(const ProjectArgs& args, ParallelFor parallel_for);

/// Traffic per token: reads n C + K + 2 elements, writes n C. 4 K n C FLOP.
void project_backward(const ProjectBackwardArgs& args, ParallelFor parallel_for);

}  // namespace cpu

namespace cuda {

/// Queue project on the stream; float32, bfloat16 and float16 streams. Bytes as on the CPU, beside
/// scratch. A token's sums have the order of plan_project: the same bits in every batch. Sums over
/// tokens are taken within the ranges of plan_project_backward.
Status project_forward(const ProjectArgs& args, Stream stream);
Status project_backward(const ProjectBackwardArgs& args, Stream stream);

}  // namespace cuda
}  // namespace hyperstreams
