// How the backward of boundary lays out W for the tensor cores, and the kernel that does.
#pragma once

#include "device/device.h"
#include "plan/gradients.h"

namespace hyperstreams::cuda {

constexpr int kInnerLogits = 16;  // of one matrix instruction

/// Channel of 16 that is element g of half `upper` in a matrix: lane q then has 4q to 4q + 3.
__device__ __forceinline__ int matrix_channel(int g, int upper) {
  return g / 2 * 4 + 2 * upper + g % 2;
}

/// Fragments [block of 16 channels][stream][16 logits][piece][lane] of W: the words are rows 2q, 2q
/// + 1 and 2q + 8, 2q + 9 of element g of both halves.
__device__ __forceinline__ int64_t gradient_fragment(int64_t channels, int64_t streams,
                                                     int64_t stream, int64_t steps, int64_t step) {
  return ((channels * streams + stream) * steps + step) * kFloatPieces * kWarpThreads;
}

/// What boundary_fragments.cu makes fragments of.
struct GradientFragmentArgs {
  const float *phi, *norm_weight;
  int64_t streams, width, count;  // of phi; count: of fragments
  uint4* weights;                 // out
  int64_t weight_blocks;          // of the grid; the others take groups
  // Null data: none. Of a write, and of the read.
  RowsView h_res, h_post, read_weights;
  const float *grad_logits, *factor;  // [rows, K], [rows]
  int64_t tokens, groups;
  int n, n_logits, pieces, sets, tiles;
  bool per_stream;
  uint4* out;  // [groups, vectors]
  int vectors;
};

/// `blocks` of the plan, one thread for every lane of a fragment of W or vector of a group.
Status gradient_fragments(const GradientFragmentArgs& args, const LaunchShape& blocks,
                          Stream stream);

}  // namespace hyperstreams::cuda
