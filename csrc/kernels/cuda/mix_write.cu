// mix_write on CUDA, forward.
//
//   X'[t, j, c] = sum_i h_res[t, j, i] X[t, i, c] + h_post[t, j] (y[t, c] + bias[c])
//
// (without h_res the mix is the identity.) A thread owns one vector (16 bytes of channels) of a
// token and all n streams of it, so X is read once: n + 1 loads in flight, n stores. Block: x along
// the channels, y along the tokens. Up to n = 4 the coefficients are in registers.
//   (2n + 1) C elements and n n + n floats per token.
//
// float accumulation, fused multiply-add, i ascending and then y, one rounding: the bits of X' are
// those of any implementation of this order. Every element has one writer.
// 27 kernels (3 dtypes; whole vectors with 6 stream counts, masked ones with any; no mix); y's
// dtype is known at run time only.
#include "hyperstreams/mix_write.h"

#include <algorithm>

#include "device/device.h"
#include "dispatch.h"
#include "hyperstreams/plan.h"
#include "mix_write_branch.h"
#include "vector_threads.h"
#include "weights.h"

namespace hyperstreams::cuda {
namespace {

template <class S, int kN, bool kWhole>
__global__ void __launch_bounds__(kVectorThreads, 1) mix_write_kernel(const MixWriteArgs args) {
  constexpr int kVector = Vector<S>::kSize;
  constexpr int kStreams = kN ? kN : kMaxStreams;
  constexpr int kHeld = kN <= 4 ? kN : 0;
  // Destinations in one piece of code: all of them while that is short.
  [[maybe_unused]] constexpr int kUnroll = kN <= 4 && kN > 0 ? kN : 1;
  const int n = kN ? kN : args.n_streams;
  const VectorThread thread(kVector);
  if (thread.c >= args.width) return;
  const int64_t count = args.width - thread.c;
  const float* bias = args.bias ? static_cast<const float*>(args.bias) + thread.c : nullptr;

  for (int64_t t = thread.t; t < args.tokens; t += thread.token_step) {
    const S* x = static_cast<const S*>(args.x.data) + t * args.x.token_stride + thread.c;  // [n, C]
    S* out = static_cast<S*>(args.x_out) + t * n * args.width + thread.c;                  // [n, C]
    Vector<S> source[kStreams];
#pragma unroll
    for (int i = 0; i < kStreams; ++i) {
      if (i < n) source[i] = load_vector<kWhole>(x + i * args.x.stream_stride, count);
    }
    const Weights<kHeld * kHeld> h_res(static_cast<const float*>(args.h_res.data) +
                                       t * args.h_res.token_stride);
    const Weights<kHeld> h_post(static_cast<const float*>(args.h_post.data) +
                                t * args.h_post.token_stride);
    float branch[kVector];
    load_branch<kWhole>(args.y_dtype, args.y.data, t * args.y.token_stride + thread.c, bias, count,
                        branch);

#pragma unroll(kUnroll)
    for (int j = 0; j < n; ++j) {
      float sum[kVector];
#pragma unroll
      for (int i = 0; i < kStreams; ++i) {
        if (i < n) {
          const float weight = h_res(j * n + i);
#pragma unroll
          for (int k = 0; k < kVector; ++k) {
            const float value = to_float(source[i].element[k]);
            sum[k] = i == 0 ? weight * value : fmaf(weight, value, sum[k]);
          }
        }
      }
      const float weight = h_post(j);
#pragma unroll
      for (int k = 0; k < kVector; ++k) sum[k] = fmaf(weight, branch[k], sum[k]);
      store_floats<kWhole>(out + j * args.width, count, sum);
    }
  }
}

/// Without h_res: X'[j] = X[j] + h_post[j] (y + bias), for any n.
template <class S, bool kWhole>
__global__ void __launch_bounds__(kVectorThreads, 1) write_kernel(const MixWriteArgs args) {
  constexpr int kVector = Vector<S>::kSize;
  constexpr int kAtOnce = 4;  // streams whose loads are in flight together
  const VectorThread thread(kVector);
  if (thread.c >= args.width) return;
  const int64_t count = args.width - thread.c;
  const float* bias = args.bias ? static_cast<const float*>(args.bias) + thread.c : nullptr;

  for (int64_t t = thread.t; t < args.tokens; t += thread.token_step) {
    const S* x = static_cast<const S*>(args.x.data) + t * args.x.token_stride + thread.c;  // [n, C]
    const float* h_post =
        static_cast<const float*>(args.h_post.data) + t * args.h_post.token_stride;     // [n]
    S* out = static_cast<S*>(args.x_out) + t * args.n_streams * args.width + thread.c;  // [n, C]
    float branch[kVector];
    load_branch<kWhole>(args.y_dtype, args.y.data, t * args.y.token_stride + thread.c, bias, count,
                        branch);
    for (int first = 0; first < args.n_streams; first += kAtOnce) {
      float stream[kAtOnce][kVector], weight[kAtOnce];
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) {
        const int j = first + k;
        if (j < args.n_streams) {
          load_floats<kWhole>(x + j * args.x.stream_stride, count, stream[k]);
          weight[k] = h_post[j];
        }
      }
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) {
        const int j = first + k;
        if (j < args.n_streams) {
#pragma unroll
          for (int e = 0; e < kVector; ++e) {
            stream[k][e] = fmaf(weight[k], branch[e], stream[k][e]);
          }
          store_floats<kWhole>(out + j * args.width, count, stream[k]);
        }
      }
    }
  }
}

}  // namespace

Status mix_write_forward(const MixWriteArgs& args, Stream stream) {
  if (!supports_mix_write(args.dtype, args.y_dtype)) return Status::kUnsupportedDType;
  if (args.tokens == 0) return Status::kOk;
  const int n = args.n_streams;
  const StreamsView x_out{args.x_out, n * args.width, args.width};
  const int64_t alignment = std::min({row_alignment(args.x, args.tokens, n, args.dtype),
                                      row_alignment(x_out, args.tokens, n, args.dtype),
                                      row_alignment(args.y, args.tokens, args.y_dtype),
                                      row_alignment({args.bias, 0}, 1, DType::kFloat32)});
  const MixWritePlan plan = plan_mix_write(args.tokens, args.width, args.dtype, alignment, false);
  return dispatch_dtype(args.dtype, [&](auto dtype) {
    return dispatch_bool(plan.whole_vectors, [&](auto whole) {
      using S = typename decltype(dtype)::type;
      constexpr bool kWhole = decltype(whole)::value;
      if (!args.h_res.data) return launch(write_kernel<S, kWhole>, plan.forward, stream, args);
      return dispatch_streams(n, [&](auto streams) {
        constexpr int kN = kWhole ? decltype(streams)::value : 0;
        return launch(mix_write_kernel<S, kN, kWhole>, plan.forward, stream, args);
      });
    });
  });
}

}  // namespace hyperstreams::cuda
