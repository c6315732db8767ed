// What project's backward and boundary's share: the weighted phi in blocks, the products of one
// tile of tokens and one block of channels, and the sums over partitions.
#pragma once

#include "ahead.h"
#include "hyperstreams/project.h"
#include "project_tile.h"

namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE {

// Tokens of a tile: a multiple of every level's tile; the same at all levels, since a tile's tokens
// are summed first.
constexpr int64_t kProjectRows = 48;
static_assert(kProjectRows % kTileTokens == 0);

template <class T>
struct ProjectBackwardPlan {
  int64_t blocks_per_stream;
  int64_t size;  // elements of weight and of one partition's sums
  int64_t parts;
  const T* weight;  // [blocks, K, kProjectBlock]
  T* partials;      // [parts, blocks, K, kProjectBlock]

  T* partial(int64_t part) const { return partials + part * size; }
};

/// Lays out args.workspace and fills the weighted phi. For accumulation types.
template <class T>
ProjectBackwardPlan<T> project_backward_prepare(const ProjectBackwardArgs& args,
                                                ParallelFor parallel_for);

/// Factor of v in grad_x: grad_inv_rms * d inv_rms / d v, divided by v.
template <class T>
T project_statistic_factor(const ProjectShape& shape, double eps, EpsPosition eps_position,
                           T inv_rms, T grad_inv_rms);

/// Tokens [0, tokens), at most kProjectRows, of channels [c, c + kProjectBlock) of stream i.
template <class T>
struct ProjectBackwardBlock {
  int64_t tokens;
  int i;
  int64_t c;
  const T* factor;       // [tokens], see project_statistic_factor
  const T* grad_logits;  // [tokens, K]
  T* partial;            // of the partition; grad_phi is added to its block
  T* grad;               // out, padded to whole lanes; row t is at t * grad_stride
  int64_t grad_stride;
  bool add;  // whether grad is added to
  Ahead* ahead;
};

/// The block's part of grad_x and of grad_phi. x: the tile's first token.
template <class S>
void project_backward_block(const ProjectShape& shape,
                            const ProjectBackwardPlan<accumulate_t<S>>& plan, const StreamsView& x,
                            const ProjectBackwardBlock<accumulate_t<S>>& block);

/// grad_phi and grad_norm_weight from the partial sums.
template <class T>
void project_backward_finish(const ProjectBackwardArgs& args, const ProjectBackwardPlan<T>& plan,
                             ParallelFor parallel_for);

}  // namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE
