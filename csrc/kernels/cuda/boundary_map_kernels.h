// The kernels of boundary in which a map runs, as templates over the map and n = kN <= 4; compiled
// by boundary_map_<name>.cu.
//
// A block owns tiles of up to 32 tokens, in strides of the grid. Its last warp takes the map, a
// token per thread, while the other seven walk along the channels; a token belongs to one of them,
// or to all seven.
//
// Forward (boundary_read_kernel): the parts of logits and squares are added, in ascending order;
// then h_pre, h_post, h_res of the tile by one warp, and
//   u[t, c] = sum_i h_pre[t, i] X'[t, i, c]                                  by the others
//   (n + 1) C elements, K + 1 floats per part, 2n + n n + K + 1 floats per token.
//
// Backward (boundary_adjoint_kernel): X' rebuilt from X and y, and
//   grad_h_pre[t, i] = grad_h_pre beside + sum_c grad_u[t, c] X'[t, i, c]    by seven warps
//   grad_logits, and the factor of X' in G that stands for grad_inv_rms       by the last one
//   (n + 2) C elements and about 2 K + 2 n n floats per token.
//
// Deterministic: a token's sums have an order that width and dtype fix; alpha's and bias's
// gradients are those of coefficients.cu, block by block.
#pragma once

#include "boundary_kernels.h"
#include "boundary_rows.h"
#include "boundary_state.h"
#include "coefficient_kernels.h"
#include "dispatch.h"
#include "project_statistic.h"

namespace hyperstreams::cuda {

constexpr int kMapThreads = 256;
constexpr int kStreamWarps = kMapThreads / kWarpThreads - 1;
constexpr int kTileTokens = 32;  // at most

/// This thread's place, and its block's tiles.
struct MapTiles {
  int warp;
  int64_t tokens;
  int64_t first, end;  // of the tile at hand
  int per_tile;

  __device__ __forceinline__ MapTiles(int64_t token_count, int tokens_per_tile)
      : warp(static_cast<int>(threadIdx.x) / kWarpThreads),
        tokens(token_count),
        per_tile(tokens_per_tile) {
    start(int64_t{blockIdx.x} * per_tile);
  }
  __device__ __forceinline__ void start(int64_t token) {
    first = token;
    end = first + per_tile < tokens ? first + per_tile : tokens;
  }
  __device__ __forceinline__ bool exists() const { return first < tokens; }
  __device__ __forceinline__ void advance() { start(first + int64_t{gridDim.x} * per_tile); }
  __device__ __forceinline__ bool takes_map() const { return warp == kStreamWarps; }

  /// Calls f(token, rank, threads) for the tokens of this warp, which is one of the seven.
  template <class F>
  __device__ __forceinline__ void for_tokens(bool block_per_token, const F& f) const {
    const int rank = block_per_token ? static_cast<int>(threadIdx.x) : lane();
    const int threads = block_per_token ? kStreamWarps * kWarpThreads : kWarpThreads;
    for (int64_t t = block_per_token ? first : first + warp; t < end;
         t += block_per_token ? 1 : kStreamWarps) {
      f(t, rank, threads);
    }
  }
};

/// Logits and inverse rms of the tile's rows from their parts; every warp takes rows.
__device__ __forceinline__ void add_logit_parts(const BoundaryReadArgs& args,
                                                const MapTiles& tile) {
  const ProjectShape& shape = args.project.shape;
  const int per_token = args.coefficients.settings.per_stream ? args.read.n_streams : 1;
  const int64_t count = shape.n_logits;
  for (int64_t row = tile.first * per_token + tile.warp; row < tile.end * per_token;
       row += kStreamWarps + 1) {
    for (int64_t k = lane(); k <= count; k += kWarpThreads) {
      float sum = args.sums[row * (count + 1) + k];
      for (int64_t part = 1; part < args.parts; ++part) {
        sum += args.sums[(part * shape.tokens + row) * (count + 1) + k];
      }
      if (k < count) {
        static_cast<float*>(args.project.logits)[row * count + k] = sum;
      } else {
        static_cast<float*>(args.project.inv_rms)[row] = inverse_rms(
            sum / args.features, static_cast<float>(args.project.eps), args.project.eps_position);
      }
    }
  }
}

/// u of one token, this thread's channels.
template <int kN>
__device__ __forceinline__ void read_token(const ReadArgs& args, bool whole, int64_t t, int rank,
                                           int threads, const float (&weight)[kN]) {
  for (int64_t c = int64_t{rank} * kRowChannels; c < args.width;
       c += int64_t{threads} * kRowChannels) {
    float row[kN][kRowChannels], sum[kRowChannels];
    load_rows(args.dtype, whole, args.x.data, t * args.x.token_stride + c, args.x.stream_stride,
              args.width - c, row);
#pragma unroll
    for (int i = 0; i < kN; ++i) {
#pragma unroll
      for (int k = 0; k < kRowChannels; ++k) {
        sum[k] = i == 0 ? weight[i] * row[i][k] : fmaf(weight[i], row[i][k], sum[k]);
      }
    }
    store_row(args.dtype, whole, args.u, t * args.width + c, args.width - c, sum);
  }
}

template <class Map, int kN>
__global__ void __launch_bounds__(kMapThreads, 1)
    boundary_read_kernel(const __grid_constant__ BoundaryReadArgs args, int mix_count) {
  const CoefficientsArgs& c = args.coefficients;
  for (MapTiles tile(c.tokens, args.tokens_per_tile); tile.exists(); tile.advance()) {
    add_logit_parts(args, tile);
    block_barrier();
    if (tile.takes_map()) {
      const int64_t t = tile.first + lane();
      if (t >= tile.end) continue;
      const TokenLogits logits(c, kN, mix_count, t);
      float* h_pre = static_cast<float*>(c.h_pre) + t * kN;
      float* h_post = static_cast<float*>(c.h_post) + t * kN;
      logits.for_gates<kN>([&](int k, const ActivationSettings& a, int group) {
        (k < kN ? h_pre[k] : h_post[k - kN]) = logits.activate(k, a, group).value;
      });
      if constexpr (kHasMix<Map>) {
        float mix[CoefficientSizes<kN>::kMix];
        logits.for_mix<kN>([&](int k, int m, const ActivationSettings& a, int group) {
          mix[m] = logits.activate(k, a, group).value;
        });
        Map::template forward<kN, float>(c.settings.map_settings, kN, mix,
                                         static_cast<float*>(c.h_res) + t * kN * kN,
                                         thread_scratch(c.scratch));
      }
    } else if (args.read.u) {
      tile.for_tokens(args.block_per_token, [&](int64_t t, int rank, int threads) {
        const TokenLogits logits(c, kN, mix_count, t);
        const float gate = logits.activate(lane() % kN, c.settings.read, 0).value;
        float weight[kN];
#pragma unroll
        for (int i = 0; i < kN; ++i) weight[i] = warp_shuffle(gate, i);
        read_token(args.read, args.whole_vectors, t, rank, threads, weight);
      });
    }
  }
}

/// dot[i] = this thread's part of grad_u . X'[i] of token t.
template <int kN>
__device__ __forceinline__ void dot_token(const BoundaryAdjointArgs& args, int64_t t, int rank,
                                          int threads, float (&dot)[kN]) {
  const MixWriteArgs& state = args.state;
  const bool whole = args.whole_vectors;
  const BoundaryWeights<kN> weights(state, t);
#pragma unroll
  for (int i = 0; i < kN; ++i) dot[i] = 0;
  for (int64_t c = int64_t{rank} * kRowChannels; c < state.width;
       c += int64_t{threads} * kRowChannels) {
    const int64_t count = state.width - c;
    float source[kN][kRowChannels], branch[1][kRowChannels] = {}, grad_u[1][kRowChannels];
    load_rows(state.dtype, whole, state.x.data, t * state.x.token_stride + c, state.x.stream_stride,
              count, source);
    load_rows(state.dtype, whole, args.grad_u.data, t * args.grad_u.token_stride + c, 0, count,
              grad_u);
    if (state.y.data) {
      load_rows(state.y_dtype, whole, state.y.data, t * state.y.token_stride + c, 0, count, branch);
      if (state.bias) {
        float bias[1][kRowChannels];
        load_rows(DType::kFloat32, whole, state.bias, c, 0, count, bias);
#pragma unroll
        for (int k = 0; k < kRowChannels; ++k) branch[0][k] += bias[0][k];
      }
    }
#pragma unroll
    for (int j = 0; j < kN; ++j) {
      float x[kRowChannels];
#pragma unroll
      for (int k = 0; k < kRowChannels; ++k) {
        x[k] = state_value(state, weights, j, branch[0][k], [&](int i) { return source[i][k]; });
      }
      if (state.y.data) round_row(state.dtype, x);
#pragma unroll
      for (int k = 0; k < kRowChannels; ++k) dot[j] = fmaf(grad_u[0][k], x[k], dot[j]);
    }
  }
}

template <int kN>
struct DotStorage {
  float sum[kTileTokens][kStreamWarps][kN];
};

/// What one token gives to alpha and bias through the read's logits.
template <int kN>
struct ReadTerms {
  float alpha[kN] = {}, bias[kN] = {};
};

/// The adjoint of one token's coefficients, in two steps: what needs no grad_h_pre comes first.
template <class Map, int kN>
class BoundaryTokenAdjoint {
 public:
  /// of_rms: what the logits give to the inverse rms by stream, and in all; kept from the first
  /// step to the second.
  __device__ __forceinline__ BoundaryTokenAdjoint(const BoundaryAdjointArgs& args, int mix_count,
                                                  int64_t t, float (&of_rms)[kN + 1])
      : args_(args), c_(args.coefficients), t_(t), logits_(c_, kN, mix_count, t), of_rms_(of_rms) {
    grad_logits_ = static_cast<float*>(c_.grad_logits) + t * (2 * kN + mix_count);
  }

  __device__ __forceinline__ void write_and_mix(ParameterTerms<kN>& terms) {
    const float* grad_post =
        static_cast<const float*>(c_.grad_h_post.data) + t_ * c_.grad_h_post.token_stride;
    logits_.template for_gates<kN>([&](int k, const ActivationSettings& a, int group) {
      if (k >= kN) logit(k, grad_post[k - kN], a, group, terms);
    });
    if constexpr (kHasMix<Map>) {
      float mix[CoefficientSizes<kN>::kMix], grad_mix[CoefficientSizes<kN>::kMix];
      logits_.template for_mix<kN>([&](int k, int m, const ActivationSettings& a, int group) {
        mix[m] = logits_.activate(k, a, group).value;
      });
      const float* grad_res =
          static_cast<const float*>(c_.grad_h_res.data) + t_ * c_.grad_h_res.token_stride;
      Map::template backward<kN, float>(c_.settings.map_settings, kN, mix, grad_res, grad_mix,
                                        thread_scratch(c_.scratch));
      logits_.template for_mix<kN>([&](int k, int m, const ActivationSettings& a, int group) {
        logit(k, grad_mix[m], a, group, terms);
      });
    }
  }

  /// dot[i]: what the read adds to grad_h_pre.
  __device__ __forceinline__ void read_and_statistic(const float (&dot)[kN], ReadTerms<kN>& terms) {
    const float* grad_pre =
        static_cast<const float*>(c_.grad_h_pre.data) + t_ * c_.grad_h_pre.token_stride;
#pragma unroll
    for (int k = 0; k < kN; ++k) logit(k, grad_pre[k] + dot[k], c_.settings.read, 0, terms);
    const auto factor = [&](int i, float of_rms) {
      return statistic_factor(args_.features, args_.eps, args_.eps_position, logits_.rms(i),
                              of_rms);
    };
    float* out = static_cast<float*>(c_.grad_inv_rms);
    if (!c_.settings.per_stream) {
      out[t_] = factor(0, of_rms_[kN]);
      return;
    }
#pragma unroll
    for (int i = 0; i < kN; ++i) out[t_ * kN + i] = factor(i, of_rms_[i]);
  }

 private:
  template <class Terms>
  __device__ __forceinline__ void logit(int k, float grad, const ActivationSettings& a, int group,
                                        Terms& terms) {
    const LogitAdjoint to = logit_adjoint(logits_, k, grad, a, group);
    terms.alpha[k] = to.alpha;
    terms.bias[k] = to.bias;
    grad_logits_[logits_.place(k)] = to.logit;
    // Both: a choice between them would need their addresses.
    of_rms_[k % kN] += to.rms;
    of_rms_[kN] += to.rms;
  }

  const BoundaryAdjointArgs& args_;
  const CoefficientsBackwardArgs& c_;
  int64_t t_;
  TokenLogits logits_;
  float* grad_logits_;
  float (&of_rms_)[kN + 1];
};

/// The sums of token lane() of the tile.
template <int kN>
__device__ __forceinline__ void load_dots(const BoundaryAdjointArgs& args,
                                          const DotStorage<kN>& storage, float (&dot)[kN]) {
  const auto& sums = storage.sum[lane()];
  const int first = args.block_per_token ? 0 : lane() % kStreamWarps;
#pragma unroll
  for (int i = 0; i < kN; ++i) {
    dot[i] = sums[first][i];
    for (int warp = 1; args.block_per_token && warp < kStreamWarps; ++warp) {
      dot[i] += sums[warp][i];
    }
  }
}

template <class Map, int kN>
__global__ void __launch_bounds__(kMapThreads, 1)
    boundary_adjoint_kernel(const __grid_constant__ BoundaryAdjointArgs args, int mix_count) {
  auto& storage = shared<DotStorage<kN>>();
  const int count = 2 * kN + mix_count;
  double* partial = args.coefficients.partials + int64_t{blockIdx.x} * 2 * count;
  bool is_first = true;
  for (MapTiles tile(args.coefficients.tokens, args.tokens_per_tile); tile.exists();
       tile.advance()) {
    const int64_t t = tile.first + lane();
    const bool has_token = tile.takes_map() && t < tile.end;
    float of_rms[kN + 1] = {};
    if (tile.takes_map()) {
      ParameterTerms<kN> terms;
      if (has_token) {
        BoundaryTokenAdjoint<Map, kN>(args, mix_count, t, of_rms).write_and_mix(terms);
      }
      add_to_partial<kN>(terms.alpha, count, is_first, partial);
      add_to_partial<kN>(terms.bias, count, is_first, partial + count);
      is_first = false;
    } else if (args.grad_u.data) {
      tile.for_tokens(args.block_per_token, [&](int64_t token, int rank, int threads) {
        float dot[kN];
        dot_token(args, token, rank, threads, dot);
#pragma unroll
        for (int i = 0; i < kN; ++i) {
          const float sum = warp_sum(dot[i]);
          if (lane() == 0) storage.sum[token - tile.first][tile.warp][i] = sum;
        }
      });
    }
    block_barrier();
    if (tile.takes_map()) {
      ReadTerms<kN> terms;
      if (has_token) {
        float dot[kN] = {};
        if (args.grad_u.data) load_dots(args, storage, dot);
        BoundaryTokenAdjoint<Map, kN>(args, mix_count, t, of_rms).read_and_statistic(dot, terms);
      }
      add_to_partial<kN>(terms.alpha, kN, false, partial);
      add_to_partial<kN>(terms.bias, kN, false, partial + count);
    }
    block_barrier();
  }
}

/// Calls f(std::integral_constant<int, kN>{}) for n = 1 to 4.
template <class F>
Status dispatch_boundary_streams(int n, const F& f) {
  if (n == 1) return f(std::integral_constant<int, 1>{});
  if (n == 2) return f(std::integral_constant<int, 2>{});
  if (n == 3) return f(std::integral_constant<int, 3>{});
  return f(std::integral_constant<int, 4>{});
}

template <class Map>
Status boundary_read(const BoundaryReadArgs& args, const BoundaryPlan& plan, Stream stream) {
  const CoefficientSettings& s = args.coefficients.settings;
  return dispatch_boundary_streams(s.n_streams, [&](auto streams) {
    return launch(boundary_read_kernel<Map, decltype(streams)::value>, plan.read, stream, args,
                  mix_logit_count(s.map, s.map_settings, s.n_streams));
  });
}

template <class Map>
Status boundary_adjoint(const BoundaryAdjointArgs& args, const BoundaryPlan& plan, Stream stream) {
  const CoefficientSettings& s = args.coefficients.settings;
  return dispatch_boundary_streams(s.n_streams, [&](auto streams) {
    return launch(boundary_adjoint_kernel<Map, decltype(streams)::value>, plan.adjoint, stream,
                  args, mix_logit_count(s.map, s.map_settings, s.n_streams));
  });
}

#define HYPERSTREAMS_INSTANTIATE_BOUNDARY(Map)                                              \
  template Status boundary_read<Map>(const BoundaryReadArgs&, const BoundaryPlan&, Stream); \
  template Status boundary_adjoint<Map>(const BoundaryAdjointArgs&, const BoundaryPlan&, Stream);

}  // namespace hyperstreams::cuda
