// boundary on CUDA, forward: the write of one site with the sums of the next, then coefficients and
// the read.
//
//   X' = mix_write(X, y, h_res, h_post, bias);  logits, inv_rms = project(X', phi, norm_weight)
//   h_pre', h_post', h_res' = coefficients(logits, inv_rms, alpha, bias');  u' = read(X', h_pre')
//
// Two kernels over the streams, boundary_write.h and the read's own, with the coefficients in
// between: (2n + 1) + (n + 1) C elements per token; K + 1 floats per part of the channels, and
// 2n + n n + K + 1. Where the read's weights are given the first makes u' too, 2n + 2, and there is
// no read. In front, one warp per 32 channels and 8 logits brings W into fragments, once per call;
// with few tokens it is read as it is.
//
// Deterministic: see the kernels. A token's outputs do not depend on the tokens beside it.
#include "hyperstreams/boundary.h"

#include <algorithm>

#include "boundary_chain.h"
#include "boundary_kernels.h"
#include "boundary_plan.h"
#include "boundary_state.h"
#include "coefficient_maps.h"
#include "dispatch.h"
#include "map_dispatch.h"
#include "mix_write_branch.h"
#include "skinny_product.h"

namespace hyperstreams::cuda {
namespace {

constexpr int kFragmentThreads = 256;

struct FragmentArgs {
  const float *phi, *norm_weight;
  int64_t n_logits, streams, width, chunks;  // chunks: of one stream
  int tiles;
  uint4* out;
};

/// A warp makes the fragments of one chunk, stream and tile: [chunk][stream][tile][piece][lane], so
/// that what meets at a chunk lies together.
__global__ void __launch_bounds__(kFragmentThreads)
    boundary_fragments_kernel(const __grid_constant__ FragmentArgs args) {
  const int64_t warp = (int64_t{blockIdx.x} * kFragmentThreads + threadIdx.x) / kWarpThreads;
  if (warp >= args.chunks * args.streams * args.tiles) return;
  const int64_t run = warp / args.tiles, chunk = run / args.streams, stream = run % args.streams;
  const int tile = static_cast<int>(warp % args.tiles);
  float value[kLaneChannels];
  uint4 words[kFloatPieces];
  load_weights<true>(args.phi, args.norm_weight, args.n_logits, args.streams, args.width,
                     tile * kTileLogits + lane() / 4,
                     ChunkPosition(stream * args.chunks + chunk, args.width), value);
  split_weights(value, words);
#pragma unroll
  for (int p = 0; p < kFloatPieces; ++p) {
    args.out[weight_fragment(run, args.tiles, tile, p) + lane()] = words[p];
  }
}

MixWriteArgs write_of(const BoundaryArgs& args) {
  if (args.write) return *args.write;
  const ReadArgs& read = args.read;
  return without_write(read.tokens, read.n_streams, read.width, read.dtype, read.x);
}

int64_t alignment_of(const BoundaryArgs& args, const MixWriteArgs& write) {
  const int64_t tokens = args.read.tokens;
  const int n = args.read.n_streams;
  const DType dtype = args.read.dtype;
  const StreamsView x_out{write.x_out, n * write.width, write.width};
  int64_t alignment =
      std::min({row_alignment(write.x, tokens, n, dtype), row_alignment(x_out, tokens, n, dtype),
                row_alignment(write.y, tokens, write.y_dtype),
                row_alignment({write.bias, 0}, 1, DType::kFloat32),
                row_alignment(args.read.x, tokens, n, dtype),
                row_alignment({args.read.u, args.read.width}, tokens, dtype)});
  if (args.project) {
    alignment = std::min({alignment, row_alignment({args.project->phi, 0}, 1, DType::kFloat32),
                          row_alignment({args.project->norm_weight, 0}, 1, DType::kFloat32)});
  }
  return alignment;
}

Status queue_write(const BoundaryArgs& args, const BoundaryPlan& plan, const MixWriteArgs& write,
                   bool weights_given, Stream stream) {
  BoundaryWriteArgs w = {};
  w.write = write;
  if (weights_given) w.read = args.read;
  w.chunks = plan.chunks;
  w.chunks_per_part = plan.chunks_per_part;
  w.chunks_per_block = plan.parts_per_block * plan.chunks_per_part;
  w.chunks_by_warp = plan.chunks_by_warp;
  if (args.project) {
    w.phi = static_cast<const float*>(args.project->phi);
    w.norm_weight = static_cast<const float*>(args.project->norm_weight);
    w.phi_streams = args.project->shape.n_streams;
    w.n_logits = static_cast<int>(args.project->shape.n_logits);
    w.sums = args.workspace + plan.forward.sums;
    if (!plan.direct) {
      auto* fragments = scratch_at<uint4>(args.workspace, plan.forward.weights);
      w.weights = fragments;
      const Status status = launch(boundary_fragments_kernel, plan.weights, stream,
                                   FragmentArgs{w.phi, w.norm_weight, w.n_logits, w.phi_streams,
                                                write.width, plan.chunks, plan.tiles, fragments});
      if (status != Status::kOk) return status;
    }
  }
  return dispatch_dtype(write.dtype, [&](auto dtype) {
    return boundary_write<typename decltype(dtype)::type>(w, plan, stream);
  });
}

/// The parts of logits and squares are added on the way.
Status queue_coefficients(const BoundaryArgs& args, const BoundaryPlan& plan, Stream stream) {
  CoefficientsArgs c = *args.coefficients;
  c.scratch = args.workspace + plan.forward.map;
  const ProjectArgs& project = *args.project;
  const LogitParts parts{
      args.workspace + plan.forward.sums,       plan.parts,
      static_cast<int>(project.shape.n_logits), static_cast<float>(project.shape.features()),
      static_cast<float>(project.eps),          project.eps_position,
      static_cast<float*>(project.logits),      static_cast<float*>(project.inv_rms)};
  return dispatch_map(c.settings.map, [&](auto map) {
    return map_forward<typename decltype(map)::type>(c, parts, plan.coefficients, stream);
  });
}

}  // namespace

Status boundary_forward(const BoundaryArgs& args, Stream stream) {
  const ReadArgs& read = args.read;
  const MixWriteArgs write = write_of(args);
  if (!supports_mix_write(write.dtype, write.y_dtype)) return Status::kUnsupportedDType;
  if (read.tokens == 0) return Status::kOk;
  const BoundaryShape shape = boundary_shape(
      read.tokens, read.n_streams, read.width, read.dtype,
      args.coefficients ? &args.coefficients->settings : nullptr, block_shared_limit());
  const BoundaryPlan plan = plan_boundary(shape, alignment_of(args, write));
  if (!plan.fused) return boundary_chain_forward(args, shape, stream);
  return boundary_forward(args, plan, stream);
}

Status boundary_forward(const BoundaryArgs& args, const BoundaryPlan& plan, Stream stream) {
  const bool weights_given = !args.coefficients || args.read.h_pre.data != args.coefficients->h_pre;
  // Without a write, X' is there, and the first kernel is for its sums.
  Status status = queue_write(args, plan, write_of(args), weights_given, stream);
  if (status == Status::kOk && args.coefficients) status = queue_coefficients(args, plan, stream);
  if (status != Status::kOk || weights_given) return status;
  return read_forward(args.read, stream);
}

}  // namespace hyperstreams::cuda
