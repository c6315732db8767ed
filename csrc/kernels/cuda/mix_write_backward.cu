// mix_write on CUDA, backward. With G = grad_out:
//
//   grad_x[t, i, c]     = sum_j h_res[t, j, i] G[t, j, c]
//   grad_y[t, c]        = sum_j h_post[t, j] G[t, j, c]
//   grad_h_res[t, j, i] = sum_c G[t, j, c] X[t, i, c]            (summed over t too when static)
//   grad_h_post[t, j]   = sum_c G[t, j, c] (y[t, c] + bias[c])   (summed over t too when static)
//   grad_bias[c]        = sum_t sum_j h_post[t, j] G[t, j, c]
//
// A token is owned by one warp (rows up to 128 vectors) or one block of 256 threads, which walks
// along the channels; thread r has vectors r, r + threads, ... of all streams, and the sums of its
// channels in registers.
//   (3n + 2) C elements and 2 (n n + n) floats per token; static coefficients: 8 (n n + n) bytes
//   more per block; a bias: n C elements more, read by a kernel of its own.
// n up to 4 in whole vectors: one walk. Otherwise one walk for grad_x and grad_y, then one for
// every four destinations' sums, which read X again: n n + n sums would not leave room in
// registers.
//
// float accumulation, fused multiply-add, j ascending, one rounding. Deterministic: a token's sums
// have an order that width and dtype fix; static ones are added within a block's tokens, then over
// blocks in order; grad_bias likewise within parts. All outputs are written completely.
// 42 kernels (3 dtypes; by warp or block per token, whole vectors with 5 stream counts, masked ones
// with any; grad_bias).
#include <algorithm>

#include "column_sums.h"
#include "device/device.h"
#include "dispatch.h"
#include "hyperstreams/mix_write.h"
#include "hyperstreams/plan.h"
#include "mix_write_branch.h"
#include "owner_sums.h"
#include "sum_partials.h"
#include "weights.h"

namespace hyperstreams::cuda {
namespace {

/// What backward reads and writes for one token and the thread's channels from c on.
template <class S, bool kWhole>
struct Token {
  const MixWriteBackwardArgs& args;
  int64_t t;
  const S *x, *grad_out;  // [n, C]
  S* grad_x;              // [n, C]
  const float *h_res, *h_post;

  __device__ __forceinline__ Token(const MixWriteBackwardArgs& a, int64_t token)
      : args(a),
        t(token),
        x(static_cast<const S*>(a.x.data) + t * a.x.token_stride),
        grad_out(static_cast<const S*>(a.grad_out.data) + t * a.grad_out.token_stride),
        grad_x(static_cast<S*>(a.grad_x) + t * a.n_streams * a.width),
        h_res(static_cast<const float*>(a.h_res.data) + t * a.h_res.token_stride),
        h_post(static_cast<const float*>(a.h_post.data) + t * a.h_post.token_stride) {}

  __device__ __forceinline__ Vector<S> load_x(int i, int64_t c) const {
    return load_vector<kWhole>(x + i * args.x.stream_stride + c, args.width - c);
  }
  __device__ __forceinline__ Vector<S> load_grad(int j, int64_t c) const {
    return load_vector<kWhole>(grad_out + j * args.grad_out.stream_stride + c, args.width - c);
  }
  __device__ __forceinline__ void store_grad(int i, int64_t c, const Vector<S>& grad) const {
    store_vector<kWhole>(grad_x + i * args.width + c, args.width - c, grad);
  }
  /// y + bias.
  __device__ __forceinline__ void load_y(int64_t c, float (&to)[Vector<S>::kSize]) const {
    const float* bias = args.bias ? static_cast<const float*>(args.bias) + c : nullptr;
    load_branch<kWhole>(args.y_dtype, args.y.data, t * args.y.token_stride + c, bias,
                        args.width - c, to);
  }
  __device__ __forceinline__ void store_grad_y(int64_t c,
                                               const float (&grad)[Vector<S>::kSize]) const {
    store_branch<kWhole>(args.y_dtype, args.grad_y, t * args.width + c, args.width - c, grad);
  }
};

/// Where the sums over channels of one token, or of a block's tokens, go. kRows destinations from
/// `row`; res[r * kStreams + i] and post[r] are this thread's parts.
template <int kRows, int kStreams>
struct Sums {
  float res[kRows * kStreams], post[kRows];
};

template <int kRows, int kStreams>
struct SumsStorage {
  OwnerSumStorage<kRows * kStreams> res;
  OwnerSumStorage<kRows> post;
};

/// Sums over the owner that are not static, after a token.
template <int kThreadsPerToken, int kRows, int kStreams>
__device__ __forceinline__ void finish_token(const MixWriteBackwardArgs& args, int64_t t, int row,
                                             Sums<kRows, kStreams>& sums,
                                             SumsStorage<kRows, kStreams>& storage) {
  const int n = args.n_streams;
  if (args.h_res.data && args.h_res.token_stride != 0) {
    float* grad = static_cast<float*>(args.grad_h_res) + t * n * n;
    owner_sums<kThreadsPerToken>(sums.res, storage.res, [&](int k, float sum) {
      const int j = row + k / kStreams, i = k % kStreams;
      if (j < n && i < n) grad[j * n + i] = sum;
    });
  }
  if (args.h_post.token_stride != 0) {
    float* grad = static_cast<float*>(args.grad_h_post) + t * n;
    owner_sums<kThreadsPerToken>(sums.post, storage.post, [&](int k, float sum) {
      if (row + k < n) grad[row + k] = sum;
    });
  }
}

/// Sums over the block that are static, after its tokens.
template <int kRows, int kStreams>
__device__ __forceinline__ void finish_block(const MixWriteBackwardArgs& args, int row,
                                             Sums<kRows, kStreams>& sums,
                                             SumsStorage<kRows, kStreams>& storage) {
  const int n = args.n_streams;
  double* partial = args.partials + int64_t{blockIdx.x} * (n * n + n);  // [n n + n]
  if (args.h_res.data && args.h_res.token_stride == 0) {
    owner_sums<kOwnerThreads>(sums.res, storage.res, [&](int k, float sum) {
      const int j = row + k / kStreams, i = k % kStreams;
      if (j < n && i < n) partial[j * n + i] = sum;
    });
  }
  if (args.h_post.token_stride == 0) {
    owner_sums<kOwnerThreads>(sums.post, storage.post, [&](int k, float sum) {
      if (row + k < n) partial[n * n + row + k] = sum;
    });
  }
}

/// grad_y and the part of grad_h_post from the vectors g of kRows destinations.
template <int kRows, class S, bool kWhole, class Post>
__device__ __forceinline__ void branch_gradient(const Token<S, kWhole>& token, int64_t c,
                                                const Vector<S> (&g)[kRows], int rows,
                                                const Post& h_post) {
  float grad[Vector<S>::kSize] = {};
#pragma unroll
  for (int j = 0; j < kRows; ++j) {
    if (j < rows) {
      const float weight = h_post(j);
#pragma unroll
      for (int k = 0; k < Vector<S>::kSize; ++k) {
        grad[k] = fmaf(weight, to_float(g[j].element[k]), grad[k]);
      }
    }
  }
  token.store_grad_y(c, grad);
}

/// grad_x of source i from the vectors g of kRows destinations.
template <int kRows, class S, bool kWhole, class Res>
__device__ __forceinline__ void source_gradient(const Token<S, kWhole>& token, int64_t c,
                                                const Vector<S> (&g)[kRows], int rows, int i,
                                                const Res& h_res) {
  float sum[Vector<S>::kSize] = {};
#pragma unroll
  for (int j = 0; j < kRows; ++j) {
    if (j < rows) {
      const float weight = h_res(j * rows + i);
#pragma unroll
      for (int k = 0; k < Vector<S>::kSize; ++k) {
        sum[k] = fmaf(weight, to_float(g[j].element[k]), sum[k]);
      }
    }
  }
  Vector<S> grad;
#pragma unroll
  for (int k = 0; k < Vector<S>::kSize; ++k) grad.element[k] = from_float<S>(sum[k]);
  token.store_grad(i, c, grad);
}

/// sum += a . b over the vector.
template <class S, class B>
__device__ __forceinline__ void add_dot(const Vector<S>& a, const B& b, float& sum) {
#pragma unroll
  for (int k = 0; k < Vector<S>::kSize; ++k) sum = fmaf(to_float(a.element[k]), b(k), sum);
}

/// One walk that makes everything, for n = kN.
template <class S, int kN, bool kWhole, int kThreadsPerToken>
__device__ __forceinline__ void mix_token(const Token<S, kWhole>& token, int rank,
                                          Sums<kN, kN>& sums) {
  constexpr int kVector = Vector<S>::kSize;
  const Weights<kN * kN> h_res(token.h_res);
  const Weights<kN> h_post(token.h_post);
  for (int64_t c = int64_t{rank} * kVector; c < token.args.width; c += kThreadsPerToken * kVector) {
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

template <class S, int kN, bool kWhole, int kThreadsPerToken>
__device__ __forceinline__ void mix_block(const MixWriteBackwardArgs& args,
                                          const OwnedTokens<kThreadsPerToken>& owned) {
  auto& storage = shared<SumsStorage<kN, kN>>();
  Sums<kN, kN> sums = {};
  for (int64_t t = owned.first; t < owned.end; t += owned.kAtOnce) {
    mix_token<S, kN, kWhole, kThreadsPerToken>(Token<S, kWhole>(args, t), owned.rank, sums);
    finish_token<kThreadsPerToken>(args, t, 0, sums, storage);
  }
  finish_block(args, 0, sums, storage);
}

constexpr int kRowsAtOnce = 4;

/// The sums over channels of kRowsAtOnce destinations from `row`, for any n.
template <class S, bool kWhole, int kThreadsPerToken>
__device__ __forceinline__ void dot_rows(const Token<S, kWhole>& token, int rank, int row,
                                         Sums<kRowsAtOnce, kMaxStreams>& sums) {
  constexpr int kVector = Vector<S>::kSize;
  const int n = token.args.n_streams;
  for (int64_t c = int64_t{rank} * kVector; c < token.args.width; c += kThreadsPerToken * kVector) {
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
template <class S, bool kWhole, int kThreadsPerToken>
__device__ __forceinline__ void input_gradients(const Token<S, kWhole>& token, int rank) {
  constexpr int kVector = Vector<S>::kSize;
  const int n = token.args.n_streams;
  const Weights<0> h_res(token.h_res), h_post(token.h_post);
  for (int64_t c = int64_t{rank} * kVector; c < token.args.width; c += kThreadsPerToken * kVector) {
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

template <class S, bool kWhole, int kThreadsPerToken>
__device__ __forceinline__ void any_block(const MixWriteBackwardArgs& args,
                                          const OwnedTokens<kThreadsPerToken>& owned) {
  auto& storage = shared<SumsStorage<kRowsAtOnce, kMaxStreams>>();
  for (int64_t t = owned.first; t < owned.end; t += owned.kAtOnce) {
    input_gradients<S, kWhole, kThreadsPerToken>(Token<S, kWhole>(args, t), owned.rank);
  }
#pragma unroll 1
  for (int row = 0; row < args.n_streams; row += kRowsAtOnce) {
    Sums<kRowsAtOnce, kMaxStreams> sums = {};
    for (int64_t t = owned.first; t < owned.end; t += owned.kAtOnce) {
      dot_rows<S, kWhole, kThreadsPerToken>(Token<S, kWhole>(args, t), owned.rank, row, sums);
      finish_token<kThreadsPerToken>(args, t, row, sums, storage);
    }
    finish_block(args, row, sums, storage);
  }
}

/// kN = 0: any number of streams, with or without h_res.
template <class S, int kN, bool kWhole, int kThreadsPerToken>
__global__ void __launch_bounds__(kOwnerThreads, kBlocksPerMultiprocessor)
    mix_write_backward_kernel(const MixWriteBackwardArgs args, int64_t tokens_per_block) {
  const OwnedTokens<kThreadsPerToken> owned(args.tokens, tokens_per_block);
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
    const Token<S, kWhole> token(args, t);
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
    return dispatch_bool(plan.backward.threads_per_token == kWarpThreads, [&](auto warp) {
      constexpr int kThreadsPerToken = decltype(warp)::value ? kWarpThreads : kOwnerThreads;
      constexpr int kN = kWhole ? decltype(streams)::value : 0;
      return launch(mix_write_backward_kernel<S, kN, kWhole, kThreadsPerToken>,
                    plan.backward.launch, stream, args, plan.backward.tokens_per_block);
    });
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
