// What boundary's launchers hand to its kernels, and the functions that queue them. Each is
// compiled in files of its own: boundary_write_<dtype>.cu, boundary_dots.cu,
// boundary_gradients_<dtype>.cu.
#pragma once

#include "device/device.h"
#include "hyperstreams/boundary.h"
#include "hyperstreams/plan.h"

namespace hyperstreams::cuda {

/// The first kernel of the forward.
struct BoundaryWriteArgs {
  MixWriteArgs write;        // y none: x is X', and x_out is unused
  ReadArgs read;             // u null: weights are not given
  const uint4* weights;      // fragments [chunk][stream][tile][piece][lane] of W, unless direct
  const float* phi;          // [K, D], when direct; D of phi_streams streams
  const float* norm_weight;  // [D] or null
  int64_t phi_streams;
  int n_logits;  // of a row of project; 0: no controller
  int64_t chunks, chunks_per_part, chunks_per_block;
  bool chunks_by_warp;
  float* sums;  // out [parts, rows, K + 1], the squares last
};

/// The first kernel of the backward.
struct BoundaryDotsArgs {
  MixWriteArgs state;  // y none: x is X'; x_out unused
  RowsView grad_u;
  int64_t pieces, piece_vectors;
  float* dots;  // out [pieces, tokens, n]
};

/// The last kernel of the backward over the streams.
struct BoundaryGradientsArgs {
  MixWriteArgs state;    // y none: x is X'; x_out unused
  StreamsView grad_out;  // grad_x', none without y
  RowsView grad_u;
  const uint4* weights;  // fragments of W
  const uint4* groups;   // [groups of 16 tokens, group_vectors]: plan/gradients.h
  int group_vectors;
  int n_logits;  // of a row of project; 0: no controller
  bool per_stream;
  void* grad_x;          // out [tokens, n, C]
  void* grad_y;          // out [tokens, C], with y
  float* sums;           // out [slabs, tokens, n, n + 2], where any are wanted: of h_res[j, :],
                         // h_post[j] and weight[j]
  float* phi_partials;   // out [parts, K, D]
  float* bias_partials;  // out [parts, C] or null
  int64_t tokens_per_part;
};

/// Sums over channels of one token: grad_h_res, grad_h_post, grad of the read weights.
constexpr int boundary_sums(int n) { return n * n + 2 * n; }

/// Scratch that begins at float `at`, as the plan lays it out.
template <class T>
T* scratch_at(float* workspace, int64_t at) {
  return static_cast<T*>(static_cast<void*>(workspace + at));
}

/// Tiles of 8 logits that a row of project has at most in the fused kernels, n = kN.
template <int kN>
constexpr int kBoundaryTiles = kN == 4   ? 4
                               : kN == 3 ? 2
                                         : 1;

template <class S>
Status boundary_write(const BoundaryWriteArgs& args, const BoundaryPlan& plan, Stream stream);

Status boundary_dots(const BoundaryDotsArgs& args, const BoundaryPlan& plan, Stream stream);

template <class S>
Status boundary_gradients(const BoundaryGradientsArgs& args, const BoundaryPlan& plan,
                          Stream stream);

}  // namespace hyperstreams::cuda
