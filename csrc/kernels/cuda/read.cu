// read on CUDA, forward and backward.
//
//   u[t, c]          = sum_i h_pre[t, i] X[t, i, c]
//   grad_x[t, i, c]  = h_pre[t, i] grad_u[t, c]
//   grad_h_pre[t, i] = sum_c grad_u[t, c] X[t, i, c]     (summed over t too when h_pre is static)
//
// Forward: a thread owns one vector (16 bytes of channels) of a token and all n streams of it: n
// loads in flight, one store. Block: x along the channels, y along the tokens.
//   (n + 1) C elements and n floats per token.
// Backward: a token is owned by one warp (rows up to 128 vectors) or one block of 256 threads,
// which walks along the channels; thread r has vectors r, r + threads, ... of all n streams.
//   (2n + 1) C elements and 2n floats per token; static h_pre: 8n bytes more per block.
//
// float accumulation, fused multiply-add, i ascending, one rounding. Deterministic: grad_h_pre is
// summed in an order that width and dtype fix; with static h_pre each block writes one row of
// partial sums and a second kernel adds the rows. Both outputs are written completely.
// 36 forward and 72 backward kernels (3 dtypes, 6 stream counts, whole vectors or masked, warp or
// block per token).
#include "hyperstreams/read.h"

#include <algorithm>

#include "device/device.h"
#include "dispatch.h"
#include "hyperstreams/plan.h"
#include "owner_sums.h"
#include "sum_partials.h"
#include "vector_threads.h"

namespace hyperstreams::cuda {
namespace {

/// Compile-time numbers of a kernel. kN = 0: the stream count is known at run time only.
template <class S, int kN>
struct ReadTraits {
  static constexpr int kVector = Vector<S>::kSize;
  static constexpr int kStreams = kN ? kN : kMaxStreams;
  // Streams whose loads are in flight together: four vectors a thread fill the memory pipeline, and
  // more of them would cost registers, that is, resident threads.
  static constexpr int kAtOnce = kStreams < 4 ? kStreams : 4;
  static_assert(kVector == 4 || kVector == 8, "plan_read counts on 16-byte vectors");
  static_assert(kStreams % kAtOnce == 0, "streams come in whole groups");
};

template <class S, int kN, bool kWhole>
__global__ void __launch_bounds__(kVectorThreads, kBlocksPerMultiprocessor)
    read_forward_kernel(const ReadArgs args) {
  using Traits = ReadTraits<S, kN>;
  const int n = kN ? kN : args.n_streams;
  const VectorThread thread(Traits::kVector);
  const int64_t c = thread.c;
  if (c >= args.width) return;
  const int64_t count = args.width - c;

  for (int64_t t = thread.t; t < args.tokens; t += thread.token_step) {
    const S* x = static_cast<const S*>(args.x.data) + t * args.x.token_stride + c;  // [n, C]
    const float* h =
        static_cast<const float*>(args.h_pre.data) + t * args.h_pre.token_stride;  // [n]
    S* u = static_cast<S*>(args.u) + t * args.width + c;                           // [C]

    float sum[Traits::kVector];
#pragma unroll
    for (int first = 0; first < Traits::kStreams; first += Traits::kAtOnce) {
      Vector<S> x_vector[Traits::kAtOnce];
      float weight[Traits::kAtOnce];
#pragma unroll
      for (int j = 0; j < Traits::kAtOnce; ++j) {
        const int i = first + j;
        if (i < n) {
          x_vector[j] = load_vector<kWhole>(x + i * args.x.stream_stride, count);
          weight[j] = h[i];
        }
      }
#pragma unroll
      for (int j = 0; j < Traits::kAtOnce; ++j) {
        const int i = first + j;
        if (i < n) {
#pragma unroll
          for (int k = 0; k < Traits::kVector; ++k) {
            const float value = to_float(x_vector[j].element[k]);
            sum[k] = i == 0 ? weight[j] * value : fmaf(weight[j], value, sum[k]);
          }
        }
      }
    }

    Vector<S> u_vector;
#pragma unroll
    for (int k = 0; k < Traits::kVector; ++k) u_vector.element[k] = from_float<S>(sum[k]);
    store_vector<kWhole>(u, count, u_vector);
  }
}

/// One token's grad_x, and this thread's part of its n dot products, which is added to `dot`.
template <class S, int kN, bool kWhole, int kThreadsPerToken>
__device__ __forceinline__ void read_backward_token(const ReadBackwardArgs& args, int64_t t,
                                                    int rank,
                                                    float (&dot)[ReadTraits<S, kN>::kStreams]) {
  using Traits = ReadTraits<S, kN>;
  const int n = kN ? kN : args.n_streams;
  const S* x = static_cast<const S*>(args.x.data) + t * args.x.token_stride;  // [n, C]
  const float* h = static_cast<const float*>(args.h_pre.data) + t * args.h_pre.token_stride;  // [n]
  const S* grad_u = static_cast<const S*>(args.grad_u.data) + t * args.grad_u.token_stride;   // [C]
  S* grad_x = static_cast<S*>(args.grad_x) + t * n * args.width;  // [n, C]

  constexpr int kStep = kThreadsPerToken * Traits::kVector;
  for (int64_t c = int64_t{rank} * Traits::kVector; c < args.width; c += kStep) {
    const int64_t count = args.width - c;
    const Vector<S> g = load_vector<kWhole>(grad_u + c, count);
#pragma unroll
    for (int first = 0; first < Traits::kStreams; first += Traits::kAtOnce) {
      Vector<S> x_vector[Traits::kAtOnce];
      float weight[Traits::kAtOnce];
#pragma unroll
      for (int j = 0; j < Traits::kAtOnce; ++j) {
        const int i = first + j;
        if (i < n) {
          x_vector[j] = load_vector<kWhole>(x + i * args.x.stream_stride + c, count);
          weight[j] = h[i];
        }
      }
#pragma unroll
      for (int j = 0; j < Traits::kAtOnce; ++j) {
        const int i = first + j;
        if (i < n) {
          Vector<S> grad;
#pragma unroll
          for (int k = 0; k < Traits::kVector; ++k) {
            const float g_k = to_float(g.element[k]);
            dot[i] = fmaf(g_k, to_float(x_vector[j].element[k]), dot[i]);
            grad.element[k] = from_float<S>(weight[j] * g_k);
          }
          store_vector<kWhole>(grad_x + i * args.width + c, count, grad);
        }
      }
    }
  }
}

template <class S, int kN, bool kWhole, int kThreadsPerToken>
__global__ void __launch_bounds__(kOwnerThreads, kBlocksPerMultiprocessor)
    read_backward_kernel(const ReadBackwardArgs args, int64_t tokens_per_block) {
  constexpr int kStreams = ReadTraits<S, kN>::kStreams;
  auto& storage = shared<OwnerSumStorage<kStreams>>();
  const int n = kN ? kN : args.n_streams;
  const bool is_static = args.h_pre.token_stride == 0;
  const OwnedTokens<kThreadsPerToken> owned(args.tokens, tokens_per_block);

  float dot[kStreams] = {};
  for (int64_t t = owned.first; t < owned.end; t += owned.kAtOnce) {
    read_backward_token<S, kN, kWhole, kThreadsPerToken>(args, t, owned.rank, dot);
    if (is_static) continue;
    float* grad_h = static_cast<float*>(args.grad_h_pre) + t * n;  // [n]
    owner_sums<kThreadsPerToken>(dot, storage, [&](int i, float sum) {
      if (i < n) grad_h[i] = sum;
    });
  }
  if (!is_static) return;
  double* partial = args.partials + int64_t{blockIdx.x} * n;  // [n]
  owner_sums<kOwnerThreads>(dot, storage, [&](int i, float sum) {
    if (i < n) partial[i] = sum;
  });
}

}  // namespace

Status read_forward(const ReadArgs& args, Stream stream) {
  if (args.dtype == DType::kFloat64) return Status::kUnsupportedDType;
  if (args.tokens == 0) return Status::kOk;
  const RowsView u{args.u, args.width};
  const int64_t alignment = std::min(row_alignment(args.x, args.tokens, args.n_streams, args.dtype),
                                     row_alignment(u, args.tokens, args.dtype));
  const ReadPlan plan = plan_read(args.tokens, args.width, args.dtype, alignment, false);
  return dispatch_dtype(args.dtype, [&](auto dtype) {
    return dispatch_streams(args.n_streams, [&](auto streams) {
      return dispatch_bool(plan.whole_vectors, [&](auto whole) {
        using S = typename decltype(dtype)::type;
        return launch(read_forward_kernel<S, decltype(streams)::value, decltype(whole)::value>,
                      plan.forward, stream, args);
      });
    });
  });
}

Status read_backward(const ReadBackwardArgs& args, Stream stream) {
  if (args.dtype == DType::kFloat64) return Status::kUnsupportedDType;
  const int n = args.n_streams;
  const bool is_static = args.h_pre.token_stride == 0;
  const StreamsView grad_x{args.grad_x, n * args.width, args.width};
  const int64_t alignment = std::min({row_alignment(args.x, args.tokens, n, args.dtype),
                                      row_alignment(args.grad_u, args.tokens, args.dtype),
                                      row_alignment(grad_x, args.tokens, n, args.dtype)});
  const ReadPlan plan = plan_read(args.tokens, args.width, args.dtype, alignment, is_static);
  if (args.tokens > 0) {
    const Status status = dispatch_dtype(args.dtype, [&](auto dtype) {
      return dispatch_streams(n, [&](auto streams) {
        return dispatch_bool(plan.whole_vectors, [&](auto whole) {
          return dispatch_bool(plan.backward.threads_per_token == kWarpThreads, [&](auto warp) {
            using S = typename decltype(dtype)::type;
            constexpr int kThreadsPerToken = decltype(warp)::value ? kWarpThreads : kOwnerThreads;
            return launch(read_backward_kernel<S, decltype(streams)::value, decltype(whole)::value,
                                               kThreadsPerToken>,
                          plan.backward.launch, stream, args, plan.backward.tokens_per_block);
          });
        });
      });
    });
    if (status != Status::kOk) return status;
  }
  if (!is_static) return Status::kOk;
  return sum_partials(args.partials, plan.backward.partials, n, n, args.grad_h_pre, stream);
}

}  // namespace hyperstreams::cuda
