// The first kernel of boundary's backward: what the read gives to its weights, with X' rebuilt from
// X and y,
//
//   dot[t, i] = sum_c grad_u[t, c] X'[t, i, c]
//
// A warp owns a piece of a token's channels, up to 128 vectors of 16 bytes, and its lanes vector
// after vector of them; coefficients' adjoint adds the pieces.
//   (n + 2) C elements, n n + 2 n floats per token (a piece, if more than one).
//
// Deterministic: lanes, warp and pieces add in an order that width and dtype fix.
#include "boundary_kernels.h"
#include "boundary_state.h"
#include "dispatch.h"
#include "mix_write_branch.h"

namespace hyperstreams::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarpThreads;

/// A token's rows from this thread's first channel on.
template <class S, int kN, bool kWhole, bool kMixed>
struct DotRows {
  static constexpr int kVector = Vector<S>::kSize;
  const MixWriteArgs& args;
  const S *x, *grad_u;
  int64_t y;  // offset
  const float* bias;

  __device__ __forceinline__ DotRows(const BoundaryDotsArgs& a, int64_t t, int64_t c)
      : args(a.state),
        x(static_cast<const S*>(args.x.data) + t * args.x.token_stride + c),
        grad_u(static_cast<const S*>(a.grad_u.data) + t * a.grad_u.token_stride + c),
        y(t * args.y.token_stride + c),
        bias(args.bias ? static_cast<const float*>(args.bias) + c : nullptr) {}

  __device__ __forceinline__ void advance(int64_t channels) {
    x += channels;
    grad_u += channels;
    y += channels;
    if (bias) bias += channels;
  }

  /// Adds grad_u . X' of one vector to dot; `count` channels are left.
  template <int kSums>
  __device__ __forceinline__ void add(const BoundaryWeights<kN>& weights, int64_t count,
                                      float (&dot)[kSums]) const {
    // Branches that all threads take alike; none with kMixed.
    const bool writes = kMixed || args.y.data, mixes = kMixed || (args.y.data && args.h_res.data);
    // All loads before any use.
    const auto grad = load_packed<kWhole, kVector>(grad_u, count);
    Packed<S, kVector> source[kN];
#pragma unroll
    for (int i = 0; i < kN; ++i) {
      source[i] = load_packed<kWhole, kVector>(x + i * args.x.stream_stride, count);
    }
    float branch[kVector];
    if constexpr (kMixed) {
      const auto loaded =
          load_packed<kWhole, kVector>(static_cast<const S*>(args.y.data) + y, count);
#pragma unroll
      for (int k = 0; k < kVector; ++k) branch[k] = loaded[k];
    } else if (writes) {
      load_branch<kWhole>(args.y_dtype, args.y.data, y, bias, count, branch);
    }
#pragma unroll
    for (int k = 0; k < kVector; k += 2) {
      float state[kN][2];
#pragma unroll
      for (int j = 0; j < kN; ++j) {
        const float own[2] = {source[j][k], source[j][k + 1]};
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float value = own[e];
          if (mixes) {
            value = weights.mix(j, 0) * source[0][k + e];
#pragma unroll
            for (int i = 1; i < kN; ++i) value = fmaf(weights.mix(j, i), source[i][k + e], value);
          }
          state[j][e] = writes ? fmaf(weights.post(j), branch[k + e], value) : value;
        }
        const Packed<S, 2> stored = packed<S>(state[j]);
#pragma unroll
        for (int e = 0; e < 2; ++e) dot[j] = fmaf(grad[k + e], stored[e], dot[j]);
      }
    }
  }
};

/// kMixed: whole vectors, y of X's type, h_res but no bias.
template <class S, int kN, bool kWhole, bool kMixed>
__global__ void __launch_bounds__(kThreads, blocks_at_once(kMixed ? 5 : 4))
    boundary_dots_kernel(const __grid_constant__ BoundaryDotsArgs args) {
  constexpr int kSums = kN == 3 ? 4 : kN;  // a power of two
  using Rows = DotRows<S, kN, kWhole, kMixed>;
  const int64_t tokens = args.state.tokens, width = args.state.width;
  const int64_t warp = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / kWarpThreads;
  const int64_t piece_channels = args.piece_vectors * Rows::kVector;
  for (int64_t unit = warp; unit < tokens * args.pieces; unit += int64_t{gridDim.x} * kWarps) {
    const int64_t piece = args.pieces == 1 ? 0 : unit / tokens, t = unit - piece * tokens;
    const int64_t begin = piece * piece_channels;
    const int64_t end = begin + piece_channels < width ? begin + piece_channels : width;
    const BoundaryWeights<kN> weights(args.state, t);
    float dot[kSums] = {};
    int64_t c = begin + lane() * Rows::kVector;
    Rows rows(args, t, c);
    constexpr int64_t kStep = kWarpThreads * Rows::kVector;
#pragma unroll 1
    for (; c < end; c += kStep) {
      rows.add(weights, width - c, dot);
      rows.advance(kStep);
    }
    constexpr int kLanes = kWarpThreads / kSums;  // that get a sum
    const float sum = warp_sums(dot);
    const int j = lane() / kLanes;
    if (lane() % kLanes == 0 && j < kN) args.dots[unit * kN + j] = sum;
  }
}

}  // namespace

Status boundary_dots(const BoundaryDotsArgs& args, const BoundaryPlan& plan, Stream stream) {
  const MixWriteArgs& state = args.state;
  const bool mixed =
      state.y.data && state.y_dtype == state.dtype && state.h_res.data && !state.bias;
  return dispatch_dtype(state.dtype, [&](auto type) {
    using S = typename decltype(type)::type;
    return dispatch_few_streams(state.n_streams, [&](auto streams) {
      constexpr int kN = decltype(streams)::value ? decltype(streams)::value : 4;
      auto* const kernel = !plan.whole_vectors ? boundary_dots_kernel<S, kN, false, false>
                           : mixed             ? boundary_dots_kernel<S, kN, true, true>
                                               : boundary_dots_kernel<S, kN, true, false>;
      return launch(kernel, plan.dots, stream, args);
    });
  });
}

}  // namespace hyperstreams::cuda
