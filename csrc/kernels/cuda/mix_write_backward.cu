// mix_write on CUDA, backward. With G = grad_out:
//
//   grad_x[t, i, c]     = sum_j h_res[t, j, i] G[t, j, c]
//   grad_y[t, c]        = sum_j h_post[t, j] G[t, j, c]
//   grad_h_res[t, j, i] = sum_c G[t, j, c] X[t, i, c]            (summed over t too when static)
//   grad_h_post[t, j]   = sum_c G[t, j, c] (y[t, c] + bias[c])   (summed over t too when static)
//   grad_bias[c]        = sum_t sum_j h_post[t, j] G[t, j, c]
//
// A token is owned by one warp, which walks along the channels; lane r has vectors r, r + 32, ...
// of all streams, and the sums of its channels in registers. (A block for a wide row would wait for
// its sums at every token.)
//   (3n + 2) C elements and 2 (n n + n) floats per token; static coefficients: 8 (n n + n) bytes
//   more per block; a bias: n C elements more, read by a kernel of its own.
// n up to 4 in whole vectors: one walk. Otherwise one walk for grad_x and grad_y, then one for
// every four destinations' sums, which read X again: n n + n sums would not leave room in
// registers.
//
// float accumulation, fused multiply-add, j ascending, one rounding. Deterministic: a token's sums
// have an order that width and dtype fix; static ones are added within a block's tokens, then over
// blocks in order; grad_bias likewise within parts. All outputs are written completely.
// 24 kernels (3 dtypes; whole vectors with 5 stream counts, masked ones with any; grad_bias).
#include <algorithm>

#include "column_sums.h"
#include "device/device.h"
#include "dispatch.h"
#include "hyperstreams/mix_write.h"
#include "hyperstreams/plan.h"
#include "mix_write_backward_token.h"
#include "mix_write_branch.h"
#include "owner_sums.h"
#include "sum_partials.h"
#include "weights.h"

namespace hyperstreams::cuda {
namespace {

/// One walk that makes everything, for n = kN.
template <class S, int kN, bool kWhole>
__device__ __forceinline__ void mix_token(const MixWriteToken<S, kWhole>& token, int rank,
                                          MixWriteSums<kN, kN>& sums) {
  constexpr int kVector = Vector<S>::kSize;
  const Weights<kN * kN> h_res(token.h_res);
  const Weights<kN> h_post(token.h_post);
  for (int64_t c = int64_t{rank} * kVector; c < token.args.width; c += kWarpThreads * kVector) {
    Vector<S> g[kN], x[kN];
#pragma unroll
    for (int j = 0; j < kN; ++j) g[j] = token.load_grad(j, c);
#pragma unroll
    for (int i = 0; i < kN; ++i) x[i] = token.load_x(i, c);
    float branch[kVector];
    token.load_y(c, branch);
    branch_gradient(token, c, g, kN, h_post);
#pragma unroll
    for (int j = 0; j < kN; ++j) add_dot(g[j], [&](int k) { return branch[k]; }, sums.post[j]);
#pragma unroll
    for (int i = 0; i < kN; ++i) {
      source_gradient(token, c, g, kN, i, h_res);
#pragma unroll
      for (int j = 0; j < kN; ++j) {
        add_dot(g[j], [&](int k) { return to_float(x[i].element[k]); }, sums.res[j * kN + i]);
      }
    }
  }
}

template <class S, int kN, bool kWhole>
__device__ __forceinline__ void mix_block(const MixWriteBackwardArgs& args,
                                          const OwnedTokens<kWarpThreads>& owned) {
  auto& storage = shared<MixWriteSumsStorage<kN, kN>>();
  MixWriteSums<kN, kN> sums = {};
  for (int64_t t = owned.first; t < owned.end; t += owned.kAtOnce) {
    mix_token<S, kN, kWhole>(MixWriteToken<S, kWhole>(args, t), owned.rank, sums);
    finish_token(args, t, 0, sums, storage);
  }
  finish_block(args, 0, sums, storage);
}

constexpr int kRowsAtOnce = 4;

/// The sums over channels of kRowsAtOnce destinations from `row`, for any n.
template <class S, bool kWhole>
__device__ __forceinline__ void dot_rows(const MixWriteToken<S, kWhole>& token, int rank, int row,
                                         MixWriteSums<kRowsAtOnce, kMaxStreams>& sums) {
  constexpr int kVector = Vector<S>::kSize;
  const int n = token.args.n_streams;
  for (int64_t c = int64_t{rank} * kVector; c < token.args.width; c += kWarpThreads * kVector) {
    Vector<S> g[kRowsAtOnce] = {};
#pragma unroll
    for (int r = 0; r < kRowsAtOnce; ++r) {
      if (row + r < n) g[r] = token.load_grad(row + r, c);
    }
    float branch[kVector];
    token.load_y(c, branch);
#pragma unroll
    for (int r = 0; r < kRowsAtOnce; ++r) {
      add_dot(g[r], [&](int k) { return branch[k]; }, sums.post[r]);
    }
    if (!token.args.h_res.data) continue;
#pragma unroll
    for (int i = 0; i < kMaxStreams; ++i) {
      if (i < n) {
        const Vector<S> x = token.load_x(i, c);
#pragma unroll
        for (int r = 0; r < kRowsAtOnce; ++r) {
          add_dot(
              g[r], [&](int e) { return to_float(x.element[e]); }, sums.res[r * kMaxStreams + i]);
        }
      }
    }
  }
}

/// grad_x and grad_y of one token, for any n.
template <class S, bool kWhole>
__device__ __forceinline__ void input_gradients(const MixWriteToken<S, kWhole>& token, int rank) {
  constexpr int kVector = Vector<S>::kSize;
  const int n = token.args.n_streams;
  const Weights<0> h_res(token.h_res), h_post(token.h_post);
  for (int64_t c = int64_t{rank} * kVector; c < token.args.width; c += kWarpThreads * kVector) {
    Vector<S> g[kMaxStreams];
#pragma unroll
    for (int j = 0; j < kMaxStreams; ++j) {
      if (j < n) g[j] = token.load_grad(j, c);
    }
    branch_gradient(token, c, g, n, h_post);
    if (token.args.h_res.data) {
#pragma unroll 1
      for (int i = 0; i < n; ++i) source_gradient(token, c, g, n, i, h_res);
    } else {
#pragma unroll
      for (int i = 0; i < kMaxStreams; ++i) {
        if (i < n) token.store_grad(i, c, g[i]);
      }
    }
  }
}

template <class S, bool kWhole>
__device__ __forceinline__ void any_block(const MixWriteBackwardArgs& args,
                                          const OwnedTokens<kWarpThreads>& owned) {
  auto& storage = shared<MixWriteSumsStorage<kRowsAtOnce, kMaxStreams>>();
  for (int64_t t = owned.first; t < owned.end; t += owned.kAtOnce) {
    input_gradients<S, kWhole>(MixWriteToken<S, kWhole>(args, t), owned.rank);
  }
#pragma unroll 1
  for (int row = 0; row < args.n_streams; row += kRowsAtOnce) {
    MixWriteSums<kRowsAtOnce, kMaxStreams> sums = {};
    for (int64_t t = owned.first; t < owned.end; t += owned.kAtOnce) {
      dot_rows<S, kWhole>(MixWriteToken<S, kWhole>(args, t), owned.rank, row, sums);
      finish_token(args, t, row, sums, storage);
    }
    finish_block(args, row, sums, storage);
  }
}

/// kN = 0: any number of streams, with or without h_res.
template <class S, int kN, bool kWhole>
__global__ void __launch_bounds__(kOwnerThreads, kBlocksPerMultiprocessor)
    mix_write_backward_kernel(const MixWriteBackwardArgs args, int64_t tokens_per_block) {
  const OwnedTokens<kWarpThreads> owned(args.tokens, tokens_per_block);
  if constexpr (kN == 0) {
    any_block<S, kWhole>(args, owned);
  } else {
    mix_block<S, kN, kWhole>(args, owned);
  }
}

/// First stage of grad_bias.
template <class S, bool kWhole>
__global__ void __launch_bounds__(kColumnThreads)
    grad_bias_kernel(const MixWriteBackwardArgs args, int64_t tokens_per_part) {
  constexpr int kVector = Vector<S>::kSize;
  auto& storage = shared<ColumnStorage<kVector>>();
  const PartTokens part(args.tokens, tokens_per_part);
  const int64_t block_c = int64_t{blockIdx.x} * blockDim.x * kVector;
  const int64_t c = block_c + threadIdx.x * kVector;
  float sum[kVector] = {};
  for (int64_t t = part.first; t < part.end && c < args.width; t += part.step) {
    const MixWriteToken<S, kWhole> token(args, t);
    float grad_y[kVector] = {};
#pragma unroll 4
    for (int j = 0; j < args.n_streams; ++j) {
      const float weight = token.h_post[j];
      const Vector<S> g = token.load_grad(j, c);
#pragma unroll
      for (int k = 0; k < kVector; ++k) {
        grad_y[k] = fmaf(weight, to_float(g.element[k]), grad_y[k]);
      }
    }
#pragma unroll
    for (int k = 0; k < kVector; ++k) sum[k] += grad_y[k];
  }
  float* partial = static_cast<float*>(args.bias_partials) + blockIdx.y * args.width;
  write_column_sums(sum, storage, block_c, args.width, partial);
}

/// Queues the first stages, for at least one token.
template <class S, bool kWhole>
Status launch_tokens(const MixWriteBackwardArgs& args, const MixWritePlan& plan, Stream stream) {
  const int n = args.h_res.data ? args.n_streams : 0;
  const Status status = dispatch_few_streams(n, [&](auto streams) {
    constexpr int kN = kWhole ? decltype(streams)::value : 0;
    return launch(mix_write_backward_kernel<S, kN, kWhole>, plan.backward.launch, stream, args,
                  plan.backward.tokens_per_block);
  });
  if (status != Status::kOk || !args.bias) return status;
  return launch(grad_bias_kernel<S, kWhole>, plan.bias.launch, stream, args,
                plan.bias.tokens_per_part);
}

}  // namespace

Status mix_write_backward(const MixWriteBackwardArgs& args, Stream stream) {
  if (!supports_mix_write(args.dtype, args.y_dtype)) return Status::kUnsupportedDType;
  const int n = args.n_streams;
  const int64_t tokens = args.tokens;
  const bool sum_res = args.h_res.data && args.h_res.token_stride == 0;
  const bool sum_post = args.h_post.token_stride == 0;
  const StreamsView grad_x{args.grad_x, n * args.width, args.width};
  const RowsView grad_y{args.grad_y, args.width};
  int64_t alignment = std::min({row_alignment(args.grad_out, tokens, n, args.dtype),
                                row_alignment(grad_x, tokens, n, args.dtype),
                                row_alignment(args.y, tokens, args.y_dtype),
                                row_alignment(grad_y, tokens, args.y_dtype),
                                row_alignment({args.bias, 0}, 1, DType::kFloat32)});
  if (args.h_res.data) {
    alignment = std::min(alignment, row_alignment(args.x, tokens, n, args.dtype));
  }
  const MixWritePlan plan =
      plan_mix_write(tokens, args.width, args.dtype, alignment, sum_res || sum_post);
  Status status = Status::kOk;
  if (tokens > 0) {
    status = dispatch_dtype(args.dtype, [&](auto dtype) {
      return dispatch_bool(plan.whole_vectors, [&](auto whole) {
        using S = typename decltype(dtype)::type;
        return launch_tokens<S, decltype(whole)::value>(args, plan, stream);
      });
    });
  }
  const int64_t parts = plan.backward.partials;
  const int stride = n * n + n;
  if (status == Status::kOk && sum_res) {
    status = sum_partials(args.partials, parts, stride, n * n, args.grad_h_res, stream);
  }
  if (status == Status::kOk && sum_post) {
    status = sum_partials(args.partials + n * n, parts, stride, n, args.grad_h_post, stream);
  }
  if (status == Status::kOk && args.bias) {
    status = add_parts(args.bias_partials, plan.bias.parts, args.width, args.width, args.grad_bias,
                       stream);
  }
  return status;
}

}  // namespace hyperstreams::cuda
