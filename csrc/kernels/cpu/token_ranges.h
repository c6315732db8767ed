// Ops on a range of tokens by the calling thread: what the ops' own loops hand to a thread, and
// what boundary runs one after the other on a tile of tokens that stays in the cache. Same bits
// either way.
#pragma once

#include "ahead.h"
#include "hyperstreams/mix_write.h"
#include "hyperstreams/project.h"
#include "hyperstreams/read.h"

namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE {

void mix_write_tokens(const MixWriteArgs& args, int64_t begin, int64_t end);

/// Where the sums over the tokens of one partition go; null where there is nothing to sum.
struct MixWriteSums {
  double *h_res, *h_post;
  void* bias;  // [C] in the accumulation type
};

/// accumulated: grad_out is in the accumulation type instead of the streams' dtype.
void mix_write_backward_tokens(const MixWriteBackwardArgs& args, bool accumulated, int64_t begin,
                               int64_t end, const MixWriteSums& sums);

/// The sums of partition `part`, zeroed.
MixWriteSums mix_write_clear_sums(const MixWriteBackwardArgs& args, int64_t part);

/// Static gradients and grad_bias from the sums of all partitions, in order.
void mix_write_finish_sums(const MixWriteBackwardArgs& args, int64_t parts);

void read_tokens(const ReadArgs& args, int64_t begin, int64_t end);

/// Fills args.workspace, once before any project_tokens.
void project_prepare(const ProjectArgs& args, ParallelFor parallel_for);

/// Asks for `ahead` on the way.
void project_tokens(const ProjectArgs& args, int64_t begin, int64_t end, Ahead& ahead);

}  // namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE
