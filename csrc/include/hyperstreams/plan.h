// Launch plans of the CUDA kernels: pure functions of shapes and alignment, the same on a machine
// without a GPU. Launchers, tests and `_info` use the same ones.
#pragma once

#include <cstdint>

#include "hyperstreams/coefficients.h"
#include "hyperstreams/common.h"
#include "hyperstreams/project.h"

namespace hyperstreams::cuda {

constexpr int64_t kMaxGridX = 2147483647;
constexpr int64_t kMaxGridY = 65535;

struct LaunchShape {
  int64_t grid_x, grid_y;
  int block_x, block_y;
  int shared_bytes = 0;  // of dynamic shared memory
};

/// Bytes, at most 16, of which every row of these streams begins at a multiple. Strides that are
/// not used (one token, one stream) do not count.
int64_t row_alignment(const StreamsView& x, int64_t tokens, int n_streams, DType dtype);
int64_t row_alignment(const RowsView& rows, int64_t tokens, DType dtype);

/// Backward kernels in which one warp or one block owns a token: its sums over channels are the
/// owner's, in an order that width and dtype alone fix.
struct OwnerPlan {
  int threads_per_token;     // one warp, or the whole block
  int64_t tokens_per_block;  // block b owns tokens [b, b + 1) * tokens_per_block
  LaunchShape launch;        // x: token ranges
  int64_t partials;          // rows of scratch, one per block; 0 when nothing is summed over tokens
};

/// Sums over tokens that are rows of channels: each part sums a range of tokens, then the parts are
/// added.
struct ColumnPlan {
  LaunchShape launch;       // x: rows and channels; y: parts
  int64_t blocks_per_row;   // of x
  int64_t tokens_per_part;  // part p sums tokens [p, p + 1) * tokens_per_part
  int64_t parts;            // rows of scratch
};

// Everything but `whole_vectors` depends on tokens, n, width and dtype alone; whole_vectors changes
// how bytes travel, and no bit of any result. `alignment` is the smallest row_alignment of all
// operands that lie along the channels.

/// How `read` is launched.
struct ReadPlan {
  int vector;           // channels that a thread handles at a time: 16 bytes
  bool whole_vectors;   // they travel as one access; else element by element, masked
  LaunchShape forward;  // x: channels; y: tokens, in strides of the grid
  OwnerPlan backward;   // partials with static h_pre only
};

ReadPlan plan_read(int64_t tokens, int64_t width, DType dtype, int64_t alignment, bool is_static);

/// How `mix_write` is launched.
struct MixWritePlan {
  int vector;           // as in ReadPlan, of X's dtype
  bool whole_vectors;   // X, y and bias alike
  LaunchShape forward;  // x: channels; y: tokens, in strides of the grid
  OwnerPlan backward;   // a warp at any width; partials when h_res or h_post is static
  ColumnPlan bias;      // grad_bias
};

MixWritePlan plan_mix_write(int64_t tokens, int64_t width, DType dtype, int64_t alignment,
                            bool is_static);

/// How `expand` is launched.
struct ExpandPlan {
  int vector;          // as in ReadPlan
  bool whole_vectors;  // rows, streams, scale and bias alike
  LaunchShape tokens;  // X, and grad_h; x: channels; y: tokens, in strides of the grid
  ColumnPlan sums;     // grad_scale and grad_bias
};

ExpandPlan plan_expand(int64_t tokens, int n_streams, int64_t width, DType dtype,
                       int64_t alignment);

/// One pass of `coefficients`: a block takes 32 tokens, in strides of the grid. n <= 4: by 8 warps;
/// else by one, a thread per token. Dynamic shared memory holds `arrays`, then `kept` when it fits,
/// numbers (mix_forward_space, mix_backward_space) of every token.
struct CoefficientsPass {
  LaunchShape launch;
  int arrays, kept;
  bool keeps_in_shared;
  int64_t scratch;  // floats in all, when what is kept does not fit
};

/// How `coefficients` is launched.
struct CoefficientsPlan {
  CoefficientsPass forward, backward;
  int64_t partials;  // rows of scratch for sums over tokens, one per block of backward
};

CoefficientsPlan plan_coefficients(int64_t tokens, const CoefficientSettings& settings);

/// How `stream_stats` is launched.
struct StreamStatsPlan {
  int vector;          // as in ReadPlan, of X's dtype
  bool whole_vectors;  // X and y alike
  OwnerPlan owners;    // a warp owns a token at any width; partials in every case
};

StreamStatsPlan plan_stream_stats(int64_t tokens, int64_t width, DType dtype, int64_t alignment);

/// What a block of project's forward sums, from few tokens to many: a piece, a chunk for every
/// warp, reading phi as it is; a piece; a segment; all channels.
enum class ProjectSplit : int { kDirect = 0, kPieces = 1, kSegments = 2, kWhole = 3 };

/// How `project` is launched. The channels come in chunks of 32, 8 chunks are a piece of the sum,
/// and pieces are added within segments, then segments. Work is split over blocks at the ends of
/// pieces or segments, which changes no bit.
struct ProjectPlan {
  bool whole_vectors;  // X, phi and norm_weight in 16-byte accesses
  ProjectSplit split;
  int tiles;                   // of 8 logits that a block computes, 1 to 4; 2 when not whole
  int64_t slabs;               // of so many logits
  int64_t chunks;              // of all streams
  int64_t pieces;              // the last padded
  int64_t pieces_per_segment;  // the last has fewer
  int64_t pieces_per_part;     // part p sums pieces [p, p + 1) * pieces_per_part
  int64_t parts;               // rows of scratch per token
  LaunchShape weights;         // phi in fragments; not with kDirect
  LaunchShape forward;         // x: tokens and slabs; y: parts
  LaunchShape finish;          // parts added, a warp per token
  int64_t weight_floats;       // scratch: the fragments come first, then the parts
  int64_t workspace;           // floats of scratch
};

/// `alignment`: as above, of X, phi and norm_weight.
ProjectPlan plan_project(const ProjectShape& shape, int64_t alignment);
ProjectPlan plan_project(const ProjectShape& shape, int64_t alignment, ProjectSplit split);

/// How `project`'s backward is launched. The channels of a stream come in columns of 128 bytes; a
/// block owns 4 columns and a range of tokens.
struct ProjectBackwardPlan {
  bool whole_vectors;       // X, grad_x, phi and norm_weight in 16-byte accesses
  bool together;            // one kernel for grad_x and grad_phi
  int tiles;                // of 8 logits that a block computes, 1 to 4
  int64_t slabs;            // of 32 logits
  int channels;             // of a column
  int64_t columns;          // of all streams
  int64_t tokens_per_part;  // part p sums tokens [p, p + 1) * tokens_per_part
  int64_t parts;            // rows [K, columns * channels] of scratch
  LaunchShape walk;         // x: columns; y: parts of every slab; shared memory is the kernel's
  LaunchShape grad_x;       // when not together: columns, for every 32 tokens
  LaunchShape finish;       // parts added: 32 channels x up to 32 logits
  int64_t workspace;        // floats of scratch
};

ProjectBackwardPlan plan_project_backward(const ProjectShape& shape, int64_t alignment);

/// What the launches of `boundary` depend on, beside alignment.
struct BoundaryShape {
  int64_t tokens;
  int n_streams;
  int64_t width;
  DType dtype;
  int64_t logits;        // of a token or, per stream, a stream; 0: no controller
  int64_t coefficients;  // logits of a token
  bool per_stream;
  int shared_limit;         // of the device, block_shared_limit()
  CoefficientsPlan single;  // of coefficients by itself
};

/// What a block can have with compute capability 9.0.
constexpr int kMostSharedBytes = 227 << 10;

/// `next`: the next site's coefficients, or null.
BoundaryShape boundary_shape(int64_t tokens, int n_streams, int64_t width, DType dtype,
                             const CoefficientSettings* next, int shared_limit);

/// Scratch of `boundary`: where each part begins, in floats, and how many there are in all.
struct BoundaryForwardScratch {
  int64_t weights, sums, map, size;
};
struct BoundaryBackwardScratch {
  int64_t weights, groups, grad_logits, factors, dots, sums, phi, bias, coefficients, tokens, map,
      size;
};

/// How `boundary` is launched, for n <= 4 and up to 32 logits on a device with enough shared memory
/// (fused; else op by op). Forward: the
/// fragments of W, unless direct; X' and its sums, in parts of the channels; the parts added,
/// coefficients; the read. Backward: the read's sums; coefficients' adjoint; the fragments of W and
/// of the groups; everything else, in slabs of the channels and parts of the tokens; sums over
/// slabs and over parts.
struct BoundaryPlan {
  bool fused;
  bool whole_vectors;  // X, y, phi, ... in 16-byte accesses
  bool per_stream;
  bool direct;              // the forward reads phi as it is
  bool chunks_by_warp;      // few tokens: 16 to a block, a warp takes every 8th chunk of a part
  int tiles;                // of 8 logits
  int64_t chunks;           // of 32 channels
  int64_t chunks_per_part;  // the last has fewer
  int64_t parts;            // of the channels: rows of scratch
  int64_t parts_per_block;  // of the write, 1 when direct
  LaunchShape weights;
  LaunchShape write;              // x: tokens, 16 to a warp; y: channels
  CoefficientsPlan coefficients;  // both directions', where there is a controller
  int64_t dot_pieces;             // of a token's grad_u . X'; a warp takes one
  int64_t piece_vectors;          // of 16 bytes
  LaunchShape dots;
  int64_t slabs;            // of 64 channels
  int64_t tokens_per_part;  // part p takes tokens [p, p + 1) * tokens_per_part
  int64_t token_parts;
  int64_t groups;         // of 16 tokens, as many as whole steps of a block have
  int group_vectors;      // 16-byte vectors that a group needs beside its rows
  int64_t weight_blocks;  // of gradient_weights; the others take groups
  LaunchShape gradient_weights, gradients;
  LaunchShape sums;        // over slabs, and of each block's tokens
  int64_t tokens_per_sum;  // of a block
  LaunchShape phi;         // over token parts
  BoundaryForwardScratch forward;
  BoundaryBackwardScratch backward;
};

/// Where the scratch of the single ops begins when `boundary` runs op by op, in floats, and its
/// size.
struct BoundaryChainScratch {
  int64_t state, gradient;  // X' and G, in the streams' dtype; the backward's, like all but two
  int64_t project, map;     // both directions'
  int64_t grad_pre, grad_logits, grad_rms, coefficients, write, bias, read;
  int64_t size;
};

BoundaryChainScratch plan_boundary_chain(const BoundaryShape& shape, bool backward);

/// `alignment`: of X, y, X', u, their gradients, phi, norm_weight and bias.
BoundaryPlan plan_boundary(const BoundaryShape& shape, int64_t alignment);

}  // namespace hyperstreams::cuda
