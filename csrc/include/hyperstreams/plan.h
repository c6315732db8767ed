// Launch plans of the CUDA kernels: pure functions of shapes and alignment, the same on a machine
// without a GPU. Launchers, tests and `_info` use the same ones.
#pragma once

#include <cstdint>

#include "hyperstreams/common.h"

namespace hyperstreams::cuda {

constexpr int64_t kMaxGridX = 2147483647;
constexpr int64_t kMaxGridY = 65535;

struct LaunchShape {
  int64_t grid_x, grid_y;
  int block_x, block_y;
};

/// Bytes, at most 16, of which every row of these streams begins at a multiple. Strides that are
/// not used (one token, one stream) do not count.
int64_t row_alignment(const StreamsView& x, int64_t tokens, int n_streams, DType dtype);
int64_t row_alignment(const RowsView& rows, int64_t tokens, DType dtype);

/// How `read` is launched. Everything but `whole_vectors` depends on tokens, width and dtype alone;
/// whole_vectors changes how bytes travel, and no bit of any result.
struct ReadPlan {
  int vector;                // channels that a thread handles at a time: 16 bytes
  bool whole_vectors;        // they travel as one access; else element by element, masked
  LaunchShape forward;       // x: channels; y: tokens, in strides of the grid
  int threads_per_token;     // backward: one warp, or the whole block
  int64_t tokens_per_block;  // backward: block b owns tokens [b, b + 1) * tokens_per_block
  LaunchShape backward;      // x: token ranges
  int64_t partials;          // rows of scratch, one per block; 0 with per-token h_pre
};

/// `alignment` is the smallest row_alignment of all operands.
ReadPlan plan_read(int64_t tokens, int64_t width, DType dtype, int64_t alignment, bool is_static);

}  // namespace hyperstreams::cuda
