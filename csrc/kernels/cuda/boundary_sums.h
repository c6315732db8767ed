// The last kernels of boundary's backward, which add what its blocks left: slabs of channels, parts
// of tokens.
#pragma once

#include "device/device.h"

namespace hyperstreams::cuda {

/// Sums over channels, of every token.
struct BoundarySumsArgs {
  const float* sums;  // [slabs, tokens, n, n + 2]: of h_res[j, :], h_post[j], weight[j]
  int64_t slabs, tokens, tokens_per_block;
  int n;
  // Out per token [tokens, n n], [tokens, n], [tokens, n]; null where unwanted or static.
  float *grad_h_res, *grad_h_post, *grad_read;
  // Out [blocks, boundary_sums(n)], sums over the block's tokens, by gradient; null: none is
  // static.
  double* partials;
};

/// grad_phi and grad_norm_weight.
struct BoundaryPhiArgs {
  const float* partials;  // [parts, K, D]
  const float *phi, *norm_weight;
  int64_t parts, n_logits, features;
  float *grad_phi, *grad_norm_weight;
};

Status boundary_sums(const BoundarySumsArgs& args, const LaunchShape& blocks, Stream stream);
Status boundary_phi(const BoundaryPhiArgs& args, const LaunchShape& blocks, Stream stream);

}  // namespace hyperstreams::cuda
