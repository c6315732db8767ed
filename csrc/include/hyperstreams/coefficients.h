// coefficients: controller logits -> h_pre, h_post, h_res.
//
// With z = logits * inv_rms in joint order (read n, write n, then the mixer's own, in groups),
// alpha[g(k)] the scale of k's group and b the bias, the activation stage is
//
//   inside:   a[k] = factor act(alpha z[k] + b[k]) + offset
//   outside:  a[k] = factor (alpha act(z[k]) + b[k]) + offset
//
// h_pre = a[0, n), h_post = a[n, 2n), h_res = map(a[2n, K)). The maps stand in maps/. per_stream:
// logits are [n, 2 + n] per token and inv_rms [n]; row i holds stream i's read logit, write logit
// and weights to the n destinations (free map and n*n mixer logits only).
//
// Arithmetic is float, or double for dtype kFloat64, the dtype of every array here. Outputs are
// contiguous, are written completely, and never alias inputs. tokens >= 0.
#pragma once

#include "hyperstreams/common.h"
#include "hyperstreams/cuda.h"
#include "hyperstreams/maps/settings.h"

namespace hyperstreams {

enum class ActivationKind : int { kNone = 0, kSigmoid = 1, kTanh = 2 };

struct ActivationSettings {
  ActivationKind kind;
  bool outside;
  double factor;
  double offset;
};

constexpr int kMaxMixGroups = 16;

struct CoefficientSettings {
  int n_streams;
  bool per_stream;
  ActivationSettings read, write, mix;
  int mix_groups;
  int mix_group_sizes[kMaxMixGroups];
  MapKind map;
  MapSettings map_settings;
};

/// Number of mixer logits of a map for n streams; -1 where the map does not exist.
int mix_logit_count(MapKind map, const MapSettings& settings, int n_streams);

/// What the CUDA kernels give a map; up to maps::kMaxRegisterStreams arrays are in registers.
MapSpace mix_forward_space(MapKind map, const MapSettings& settings, int n_streams);
MapSpace mix_backward_space(MapKind map, const MapSettings& settings, int n_streams);

/// Largest number of logits: n = kMaxStreams with n*n mixer logits.
constexpr int kMaxLogits = 2 * kMaxStreams + kMaxStreams * kMaxStreams;

struct CoefficientsArgs {
  int64_t tokens;
  DType dtype;  // kFloat32 or kFloat64
  CoefficientSettings settings;
  RowsView logits;    // [tokens, K]
  RowsView inv_rms;   // [tokens], or [tokens, n] when per_stream; data null: ones
  const void* alpha;  // [2 + mix_groups]
  const void* bias;   // [K]
  void* h_pre;        // out [tokens, n]
  void* h_post;       // out [tokens, n]
  void* h_res;        // out [tokens, n, n]; none for the identity
  // Scratch, on CUDA alone: plan_coefficients(...).forward.scratch elements.
  void* scratch = nullptr;
};

struct CoefficientsBackwardArgs {
  int64_t tokens;
  DType dtype;
  CoefficientSettings settings;
  RowsView grad_h_pre;   // [tokens, n]
  RowsView grad_h_post;  // [tokens, n]
  RowsView grad_h_res;   // [tokens, n, n]; none for the identity
  RowsView logits;
  RowsView inv_rms;
  const void* alpha;
  const void* bias;
  void* grad_logits;   // out [tokens, K]
  void* grad_inv_rms;  // out [tokens] or [tokens, n]; none when inv_rms is none
  void* grad_alpha;    // out [2 + mix_groups]
  void* grad_bias;     // out [K]
  // Scratch. On the CPU partials are [token_partitions(tokens), 2 + mix_groups + K] and `scratch`
  // is unused; on CUDA [plan_coefficients(...).partials, 2, K] and
  // plan_coefficients(...).backward.scratch elements.
  double* partials;
  void* scratch = nullptr;
  // The forward's outputs, or none: the CPU takes act's values from them, which is faster than from
  // the logits, with the same bits.
  RowsView h_pre = {nullptr, 0};
  RowsView h_post = {nullptr, 0};
};

namespace cpu {

/// Deterministic; a token's outputs do not depend on the tokens beside it.
void coefficients_forward(const CoefficientsArgs& args, ParallelFor parallel_for);

/// Exact adjoint of the forward's finite algorithm, which is recomputed. grad_alpha and grad_bias
/// are summed within token partitions, then over partitions in order.
void coefficients_backward(const CoefficientsBackwardArgs& args, ParallelFor parallel_for);

}  // namespace cpu

namespace cuda {

/// Queue coefficients on the stream, kFloat32 only. As on the CPU, except that grad_alpha and
/// grad_bias are summed within the blocks of plan_coefficients.
Status coefficients_forward(const CoefficientsArgs& args, Stream stream);
Status coefficients_backward(const CoefficientsBackwardArgs& args, Stream stream);

}  // namespace cuda
}  // namespace hyperstreams
