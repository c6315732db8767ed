// expand on CUDA, forward and backward.
//
//   X[t, i, c]       = h[t, c] scale[i, c] + bias[i, c]      (absent: scale 1, bias 0)
//   grad_h[t, c]     = sum_i scale[i, c] grad_x[t, i, c]
//   grad_scale[i, c] = sum_t h[t, c] grad_x[t, i, c]
//   grad_bias[i, c]  = sum_t grad_x[t, i, c]
//
// X and grad_h: a thread owns one vector (16 bytes of channels) of a token and all n streams of it.
// Block: x along the channels, y along the tokens. scale and bias come from cache.
//   (n + 1) C elements per token, forward and backward.
// grad_scale and grad_bias, where wanted: a kernel of their own, in which a thread owns one vector
// of a stream and walks along the tokens of its part.
//   n C elements more per token, and n C more of h for grad_scale, from cache but for the first.
//
// float accumulation, one fused multiply-add per element, i ascending, one rounding. Deterministic:
// sums over tokens are made within parts, then the parts are added in order. Every element has one
// writer, and all outputs are written completely.
// 18 kernels (3 dtypes, whole vectors or masked).
#include "hyperstreams/expand.h"

#include <algorithm>

#include "column_sums.h"
#include "device/device.h"
#include "dispatch.h"
#include "hyperstreams/plan.h"
#include "vector_threads.h"

namespace hyperstreams::cuda {
namespace {

constexpr int kStreamsAtOnce = 4;  // whose loads are in flight together

template <class S, bool kWhole>
__global__ void __launch_bounds__(kVectorThreads) expand_forward_kernel(const ExpandArgs args) {
  constexpr int kVector = Vector<S>::kSize;
  const VectorThread thread(kVector);
  if (thread.c >= args.width) return;
  const int64_t count = args.width - thread.c;
  for (int64_t t = thread.t; t < args.tokens; t += thread.token_step) {
    const S* h = static_cast<const S*>(args.h.data) + t * args.h.token_stride + thread.c;  // [C]
    S* x = static_cast<S*>(args.x) + t * args.n_streams * args.width + thread.c;           // [n, C]
    float value[kVector];
    load_floats<kWhole>(h, count, value);
#pragma unroll 2
    for (int i = 0; i < args.n_streams; ++i) {
      const int64_t row = i * args.width + thread.c;
      float scale[kVector], bias[kVector];
      if (args.scale)
        load_floats<kWhole>(static_cast<const float*>(args.scale) + row, count, scale);
      if (args.bias) load_floats<kWhole>(static_cast<const float*>(args.bias) + row, count, bias);
      float out[kVector];
#pragma unroll
      for (int k = 0; k < kVector; ++k) {
        const float factor = args.scale ? scale[k] : 1;
        out[k] = args.bias ? fmaf(value[k], factor, bias[k]) : value[k] * factor;
      }
      store_floats<kWhole>(x + i * args.width, count, out);
    }
  }
}

/// grad_h.
template <class S, bool kWhole>
__global__ void __launch_bounds__(kVectorThreads)
    expand_backward_kernel(const ExpandBackwardArgs args) {
  constexpr int kVector = Vector<S>::kSize;
  const VectorThread thread(kVector);
  if (thread.c >= args.width) return;
  const int64_t count = args.width - thread.c;
  for (int64_t t = thread.t; t < args.tokens; t += thread.token_step) {
    const S* grad_x = static_cast<const S*>(args.grad_x.data) + t * args.grad_x.token_stride +
                      thread.c;                                            // [n, C]
    S* grad_h = static_cast<S*>(args.grad_h) + t * args.width + thread.c;  // [C]
    float sum[kVector] = {};
    for (int first = 0; first < args.n_streams; first += kStreamsAtOnce) {
      Vector<S> g[kStreamsAtOnce];
#pragma unroll
      for (int k = 0; k < kStreamsAtOnce; ++k) {
        const int i = first + k;
        if (i < args.n_streams) {
          g[k] = load_vector<kWhole>(grad_x + i * args.grad_x.stream_stride, count);
        }
      }
#pragma unroll
      for (int k = 0; k < kStreamsAtOnce; ++k) {
        const int i = first + k;
        if (i < args.n_streams) {
          float scale[kVector];
          if (args.scale) {
            const float* row = static_cast<const float*>(args.scale) + i * args.width + thread.c;
            load_floats<kWhole>(row, count, scale);
          }
#pragma unroll
          for (int e = 0; e < kVector; ++e) {
            sum[e] = fmaf(args.scale ? scale[e] : 1, to_float(g[k].element[e]), sum[e]);
          }
        }
      }
    }
    store_floats<kWhole>(grad_h, count, sum);
  }
}

/// First stage of grad_scale and grad_bias: partials [parts, 2, n, C].
template <class S, bool kWhole>
__global__ void __launch_bounds__(kColumnThreads)
    expand_sums_kernel(const ExpandBackwardArgs args, int64_t blocks_per_row,
                       int64_t tokens_per_part) {
  constexpr int kVector = Vector<S>::kSize;
  auto& storage = shared<ColumnStorage<kVector>>();
  const PartTokens part(args.tokens, tokens_per_part);
  const int i = static_cast<int>(blockIdx.x / blocks_per_row);
  const int64_t block_c = blockIdx.x % blocks_per_row * blockDim.x * kVector;
  const int64_t c = block_c + threadIdx.x * kVector;
  const int64_t count = args.width - c;
  float of_scale[kVector] = {}, of_bias[kVector] = {};
#pragma unroll 4
  for (int64_t t = part.first; t < part.end && count > 0; t += part.step) {
    const S* grad_x = static_cast<const S*>(args.grad_x.data) + t * args.grad_x.token_stride +
                      i * args.grad_x.stream_stride + c;
    const Vector<S> g = load_vector<kWhole>(grad_x, count);
    if (args.grad_scale) {
      const S* h = static_cast<const S*>(args.h.data) + t * args.h.token_stride + c;
      const Vector<S> value = load_vector<kWhole>(h, count);
#pragma unroll
      for (int k = 0; k < kVector; ++k) {
        of_scale[k] = fmaf(to_float(value.element[k]), to_float(g.element[k]), of_scale[k]);
      }
    }
#pragma unroll
    for (int k = 0; k < kVector; ++k) of_bias[k] += to_float(g.element[k]);
  }
  const int64_t size = args.n_streams * args.width;
  float* partial = static_cast<float*>(args.partials) + 2 * blockIdx.y * size + i * args.width;
  if (args.grad_scale) write_column_sums(of_scale, storage, block_c, args.width, partial);
  if (args.grad_bias) write_column_sums(of_bias, storage, block_c, args.width, partial + size);
}

}  // namespace

Status expand_forward(const ExpandArgs& args, Stream stream) {
  if (args.dtype == DType::kFloat64) return Status::kUnsupportedDType;
  if (args.tokens == 0) return Status::kOk;
  const int n = args.n_streams;
  const StreamsView x{args.x, n * args.width, args.width};
  const int64_t alignment = std::min({row_alignment(args.h, args.tokens, args.dtype),
                                      row_alignment(x, args.tokens, n, args.dtype),
                                      row_alignment({args.scale, args.width}, n, DType::kFloat32),
                                      row_alignment({args.bias, args.width}, n, DType::kFloat32)});
  const ExpandPlan plan = plan_expand(args.tokens, n, args.width, args.dtype, alignment);
  return dispatch_dtype(args.dtype, [&](auto dtype) {
    return dispatch_bool(plan.whole_vectors, [&](auto whole) {
      using S = typename decltype(dtype)::type;
      return launch(expand_forward_kernel<S, decltype(whole)::value>, plan.tokens, stream, args);
    });
  });
}

Status expand_backward(const ExpandBackwardArgs& args, Stream stream) {
  if (args.dtype == DType::kFloat64) return Status::kUnsupportedDType;
  const int n = args.n_streams;
  const bool sums = args.grad_scale || args.grad_bias;
  const RowsView grad_h{args.grad_h, args.width};
  int64_t alignment = std::min({row_alignment(args.grad_x, args.tokens, n, args.dtype),
                                row_alignment(grad_h, args.tokens, args.dtype),
                                row_alignment({args.scale, args.width}, n, DType::kFloat32)});
  if (args.grad_scale) {
    alignment = std::min(alignment, row_alignment(args.h, args.tokens, args.dtype));
  }
  const ExpandPlan plan = plan_expand(args.tokens, n, args.width, args.dtype, alignment);
  Status status = Status::kOk;
  if (args.tokens > 0) {
    status = dispatch_dtype(args.dtype, [&](auto dtype) {
      return dispatch_bool(plan.whole_vectors, [&](auto whole) {
        using S = typename decltype(dtype)::type;
        constexpr bool kWhole = decltype(whole)::value;
        const Status queued = launch(expand_backward_kernel<S, kWhole>, plan.tokens, stream, args);
        if (queued != Status::kOk || !sums) return queued;
        return launch(expand_sums_kernel<S, kWhole>, plan.sums.launch, stream, args,
                      plan.sums.blocks_per_row, plan.sums.tokens_per_part);
      });
    });
  }
  const int64_t size = n * args.width;
  const float* partials = static_cast<const float*>(args.partials);
  if (status == Status::kOk && args.grad_scale) {
    status = add_parts(partials, plan.sums.parts, 2 * size, size, args.grad_scale, stream);
  }
  if (status == Status::kOk && args.grad_bias) {
    status = add_parts(partials + size, plan.sums.parts, 2 * size, size, args.grad_bias, stream);
  }
  return status;
}

}  // namespace hyperstreams::cuda
