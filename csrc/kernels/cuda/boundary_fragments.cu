// What boundary_gradients.h finds ready: W = phi norm_weight in fragments, by slab, and of every
// group of 16 tokens what G takes beside its rows (plan/gradients.h), so that no slab prepares it
// again.
//
// A thread makes one vector of 16 bytes, of W three, one for each piece; 3 K D / 2 floats and
// group_vectors vectors per 16 tokens are written. Nothing is summed.
#include "boundary_fragments.h"

#include "device/device.h"

namespace hyperstreams::cuda {
namespace {

constexpr int kThreads = 256;

/// A warp makes one fragment of W, of each piece.
__device__ __forceinline__ void weight_fragment_of(const GradientFragmentArgs& args) {
  const int64_t fragment = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / kWarpThreads;
  if (fragment >= args.count) return;
  const int64_t steps = (args.n_logits + kInnerLogits - 1) / kInnerLogits;
  const int64_t step = fragment % steps, stream = fragment / steps % args.streams;
  const int64_t block = fragment / steps / args.streams;
  const int g = lane() / 4, q = lane() % 4;
  uint32_t word[4][kFloatPieces];
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const int64_t c = block * kMatrixSize + matrix_channel(g, k / 2);
    const int64_t logit = step * kInnerLogits + 2 * q + k % 2 * 8, d = stream * args.width + c;
    float value[2];
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const bool exists = c < args.width && logit + e < args.n_logits;
      value[e] = exists ? args.phi[(logit + e) * args.streams * args.width + d] : 0;
      if (exists && args.norm_weight) value[e] *= args.norm_weight[d];
    }
    split(value[0], value[1], word[k]);
  }
  uint4* out = args.weights + gradient_fragment(block, args.streams, stream, steps, step) + lane();
#pragma unroll
  for (int p = 0; p < kFloatPieces; ++p) {
    out[p * kWarpThreads] = {word[0][p], word[1][p], word[2][p], word[3][p]};
  }
}

/// One of the numbers that G takes beside grad_logits: `k` of [h_res[j, :], h_post[j], weight[j],
/// factor[j]]; 0 for a token that does not exist.
__device__ __forceinline__ float group_number(const GradientFragmentArgs& args, int64_t t, int j,
                                              int k) {
  if (t >= args.tokens) return 0;
  const int n = args.n;
  const auto at = [&](const RowsView& rows, int place) {
    return rows.data ? static_cast<const float*>(rows.data)[t * rows.token_stride + place] : 0;
  };
  if (k < n) return at(args.h_res, j * n + k);
  if (k == n) return at(args.h_post, j);
  if (k == n + 1) return at(args.read_weights, j);
  if (k > n + 2 || !args.factor) return 0;
  return args.factor[args.per_stream ? t * n + j : t];
}

/// A thread makes one vector of a group.
__device__ __forceinline__ void group_vector_of(const GradientFragmentArgs& args) {
  const int64_t rank =
      (int64_t{blockIdx.x} - args.weight_blocks) * kThreads + static_cast<int>(threadIdx.x);
  const int64_t first = rank / args.vectors * kMatrixSize;
  if (rank / args.vectors >= args.groups) return;
  int place = static_cast<int>(rank % args.vectors);
  uint32_t word[4];
  const int row_floats = args.n == 1 ? 4 : 8, rows = kMatrixSize * args.n * row_floats / 4;
  if (place < rows) {
    const int number = place * 4 % row_floats, row = place * 4 / row_floats;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      word[k] = bits_from_float(group_number(args, first + row / args.n, row % args.n, number + k));
    }
    args.out[rank] = {word[0], word[1], word[2], word[3]};
    return;
  }
  place -= rows;
  const auto grad_logit = [&](int token, int logit, int stream) -> float {
    const int64_t t = first + token;
    if (t >= args.tokens || logit >= args.n_logits) return 0;
    return args.grad_logits[(args.per_stream ? t * args.n + stream : t) * args.n_logits + logit];
  };
  const bool by_set = place < args.sets * args.pieces * kWarpThreads;
  if (!by_set) place -= args.sets * args.pieces * kWarpThreads;
  const int vectors = by_set ? kWarpThreads : kWarpThreads / 2;
  const int piece = place / vectors % args.pieces, set = place / vectors / args.pieces;
  const int begin = args.per_stream ? 0 : set, stream = args.per_stream ? set : 0;
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    uint32_t pair[kFloatPieces];
    if (by_set) {
      const int g = place % vectors / 4, q = place % 4;
      const int token = g + k % 2 * 8, logit = begin * kInnerLogits + 2 * q + k / 2 * 8;
      split(grad_logit(token, logit, stream), grad_logit(token, logit + 1, stream), pair);
    } else {  // lanes 2 place and 2 place + 1
      const int to = place % vectors * 2 + k / 2, g = to / 4, q = to % 4;
      const int token = 2 * q + k % 2 * 8, logit = begin * 8 + g;
      split(grad_logit(token, logit, stream), grad_logit(token + 1, logit, stream), pair);
    }
    word[k] = piece == 0 ? pair[0] : piece == 1 ? pair[1] : pair[2];
  }
  args.out[rank] = {word[0], word[1], word[2], word[3]};
}

/// What boundary_gradients.h finds ready: W, and the groups of 16 tokens.
__global__ void __launch_bounds__(kThreads)
    gradient_fragments_kernel(const __grid_constant__ GradientFragmentArgs args) {
  if (blockIdx.x < args.weight_blocks) {
    weight_fragment_of(args);
  } else {
    group_vector_of(args);
  }
}

}  // namespace

Status gradient_fragments(const GradientFragmentArgs& args, const LaunchShape& blocks,
                          Stream stream) {
  return launch(gradient_fragments_kernel, blocks, stream, args);
}

}  // namespace hyperstreams::cuda
