// The kernels of coefficients as templates over the map; what they compute and move stands in
// coefficients.cu. Included by map_<name>.cu alone, so that each map is compiled once.
#pragma once

#include "coefficient_adjoint.h"
#include "coefficient_maps.h"
#include "coefficient_scratch.h"
#include "coefficient_tile.h"
#include "coefficient_token.h"
#include "dispatch.h"

namespace hyperstreams::cuda {

/// n = kN <= 4: a tile of tokens per block.
template <class Map, int kN>
__global__ void __launch_bounds__(kTileThreads, blocks_at_once(2))
    coefficient_tile_forward_kernel(const __grid_constant__ CoefficientsArgs args, int mix_count,
                                    const __grid_constant__ LogitParts parts) {
  auto& storage = shared<TileStorage>();
  const LaneLogit<kN> logit(args.settings, args.alpha, args.bias, mix_count);
  const bool is_gate = lane() < 2 * kN;
  float* const gates = static_cast<float*>(lane() < kN ? args.h_pre : args.h_post) + lane() % kN;
  for (TokenTile tile(args.tokens); tile.exists(); tile.advance()) {
    LaneRows rows;
    if (parts.sums) {
      rows.add(parts, args.settings, tile, logit);
    } else {
      rows.load(args, tile, logit);
    }
    ActivatedLogit activated[kWarpTokens];
    logit.activation.activate(rows.logit, rows.rms, activated);
#pragma unroll
    for (int j = 0; j < kWarpTokens; ++j) {
      const int slot = tile.slot(j);
      const float value = activated[j].value;
      storage.value[slot][lane()] = value;
      if (is_gate && tile.has(slot)) gates[(tile.first + slot) * kN] = value;
    }
    if constexpr (kHasMix<Map>) {
      block_barrier();
      TileMap<Map, kN>{args.settings.map_settings, tile, storage}.forward(
          static_cast<float*>(args.h_res));
      block_barrier();
    }
  }
}

/// What a block's tokens give to alpha and bias, by lane.
struct ParameterSums {
  double alpha = 0, bias = 0;

  /// Adds the block's warps in ascending order and writes one row [2, count] of partials.
  __device__ __forceinline__ void write(int count, double* partial) const {
    struct Storage {
      double sum[kTileWarps][2][kWarpThreads];
    };
    auto& storage = shared<Storage>();
    const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
    storage.sum[warp][0][lane()] = alpha;
    storage.sum[warp][1][lane()] = bias;
    block_barrier();
    if (warp >= 2 || lane() >= count) return;
    double sum = storage.sum[0][warp][lane()];
#pragma unroll
    for (int w = 1; w < kTileWarps; ++w) sum += storage.sum[w][warp][lane()];
    partial[warp * count + lane()] = sum;
  }
};

/// What the values of a read or write logit are given; 0 for the mixer's.
template <int kN>
__device__ __forceinline__ void load_gate_gradients(const CoefficientsBackwardArgs& args,
                                                    const ReadAdjoint& read, const TokenTile& tile,
                                                    float (&grad)[kWarpTokens]) {
  const bool is_read = lane() < kN, is_gate = lane() < 2 * kN;
  const float* from =
      static_cast<const float*>(is_read ? args.grad_h_pre.data : args.grad_h_post.data) +
      lane() % kN;
  const int64_t stride = is_read ? args.grad_h_pre.token_stride : args.grad_h_post.token_stride;
#pragma unroll
  for (int j = 0; j < kWarpTokens; ++j) {
    grad[j] = is_gate ? from[tile.token(tile.slot(j)) * stride] : 0;
  }
  if (!read.dots) return;
  float dot[kWarpTokens] = {};
#pragma unroll 1
  for (int64_t piece = 0; piece < read.pieces; ++piece) {
#pragma unroll
    for (int j = 0; j < kWarpTokens; ++j) {
      const int64_t row = piece * tile.tokens + tile.token(tile.slot(j));
      dot[j] += is_read ? read.dots[row * kN + lane()] : 0;
    }
  }
#pragma unroll
  for (int j = 0; j < kWarpTokens; ++j) grad[j] += dot[j];
}

/// grad_inv_rms of the warp's tokens, or the factor that stands for it, from each logit's term.
template <int kN>
__device__ __forceinline__ void write_statistic(const CoefficientsBackwardArgs& args,
                                                const ReadAdjoint& read, const TokenTile& tile,
                                                const LaneLogit<kN>& logit,
                                                const float (&of_rms)[kWarpTokens]) {
  constexpr int kLanes = kWarpThreads / kWarpTokens;  // that get a token's sum
  const int streams = args.settings.per_stream ? kN : 1;
  const int slot = tile.slot(lane() / kLanes);
#pragma unroll 1
  for (int i = 0; i < streams; ++i) {
    float terms[kWarpTokens];
#pragma unroll
    for (int j = 0; j < kWarpTokens; ++j) {
      terms[j] = logit.exists && logit.stream == i ? of_rms[j] : 0;
    }
    float sum = warp_sums(terms);
    if (lane() % kLanes > 0 || !tile.has(slot)) continue;
    const int64_t t = tile.first + slot;
    if (read.features > 0) {
      const float rms =
          static_cast<const float*>(args.inv_rms.data)[t * args.inv_rms.token_stride + i];
      sum = statistic_factor(read.features, read.eps, read.eps_position, rms, sum);
    }
    static_cast<float*>(args.grad_inv_rms)[t * streams + i] = sum;
  }
}

template <class Map, int kN>
__global__ void __launch_bounds__(kTileThreads, blocks_at_once(2))
    coefficient_tile_backward_kernel(const __grid_constant__ CoefficientsBackwardArgs args,
                                     int mix_count, const __grid_constant__ CoefficientsPass pass,
                                     const __grid_constant__ ReadAdjoint read) {
  auto& storage = shared<TileStorage>();
  const int count = 2 * kN + mix_count;
  const LaneLogit<kN> logit(args.settings, args.alpha, args.bias, mix_count);
  ParameterSums sums;
  for (TokenTile tile(args.tokens); tile.exists(); tile.advance()) {
    LaneRows rows;
    rows.load(args, tile, logit);
    float grad[kWarpTokens];
    load_gate_gradients<kN>(args, read, tile, grad);
    ActivatedLogit activated[kWarpTokens];
    logit.activation.activate(rows.logit, rows.rms, activated);
#pragma unroll
    for (int j = 0; j < kWarpTokens; ++j) {
      storage.value[tile.slot(j)][lane()] = activated[j].value;
    }
    if constexpr (kHasMix<Map>) {
      block_barrier();
      float* kept = tile_scratch(pass, args.scratch, pass.kept);
      TileMap<Map, kN>{args.settings.map_settings, tile, storage}.backward(args.grad_h_res,
                                                                           mix_count, kept);
      block_barrier();
    }
    float of_rms[kWarpTokens], of_alpha = 0, of_bias = 0;
#pragma unroll
    for (int j = 0; j < kWarpTokens; ++j) {
      const int slot = tile.slot(j);
      if (kHasMix<Map> && lane() >= 2 * kN) grad[j] = storage.value[slot][lane()];
      const LogitAdjoint to =
          logit_adjoint(logit.activation, activated[j], rows.logit[j], rows.rms[j], grad[j]);
      of_rms[j] = to.rms;
      if (!tile.has(slot)) continue;
      of_alpha += to.alpha;
      of_bias += to.bias;
      if (logit.exists) {
        static_cast<float*>(args.grad_logits)[(tile.first + slot) * count + logit.place] = to.logit;
      }
    }
    sums.alpha += of_alpha;
    sums.bias += of_bias;
    if (args.grad_inv_rms) write_statistic(args, read, tile, logit, of_rms);
    // The next tile's values replace these.
    block_barrier();
  }
  sums.write(count, args.partials + int64_t{blockIdx.x} * 2 * count);
}

/// Any other n: a token per thread.
template <class Map, int kN>
__global__ void __launch_bounds__(kWarpThreads, 1)
    coefficients_forward_kernel(const __grid_constant__ CoefficientsArgs args, int mix_count,
                                const __grid_constant__ CoefficientsPass pass) {
  const int n = kN ? kN : args.settings.n_streams;
  const SharedScratch scratch = thread_scratch(pass, args.scratch);
  for (int64_t t = int64_t{blockIdx.x} * kWarpThreads + lane(); t < args.tokens;
       t += int64_t{gridDim.x} * kWarpThreads) {
    const TokenLogits logits(args, n, mix_count, t);
    float* h_pre = static_cast<float*>(args.h_pre) + t * n;
    float* h_post = static_cast<float*>(args.h_post) + t * n;
    logits.for_gates([&](int k, const ActivationSettings& a, int group) {
      (k < n ? h_pre[k] : h_post[k - n]) = logits.activate(k, a, group);
    });
    if constexpr (kHasMix<Map>) {
      Map::template forward<kN, float>(args.settings.map_settings, n, MixInput{logits},
                                       static_cast<float*>(args.h_res) + t * n * n, scratch);
    }
  }
}

/// Half a warp of logits from `begin`: what alpha gets, and what bias gets, to [2, count] sums.
__device__ __forceinline__ void add_logits(SharedTokenAdjoint& token, bool is_token, int begin,
                                           int count, bool is_first, double* sums) {
  constexpr int kHalf = kWarpThreads / 2;
  float terms[kWarpThreads] = {};
  if (is_token) {
#pragma unroll
    for (int j = 0; j < kHalf; ++j) {
      if (begin + j < count) {
        const LogitAdjoint to = token.step(begin + j);
        terms[j] = to.alpha;
        terms[kHalf + j] = to.bias;
      }
    }
  }
  const float sum = warp_sums(terms);
  const int k = begin + lane() % kHalf;
  if (k < count) {
    double& total = sums[lane() < kHalf ? k : count + k];
    total = is_first ? sum : total + sum;
  }
}

template <class Map, int kN>
__global__ void __launch_bounds__(kWarpThreads, 1)
    coefficients_backward_kernel(const __grid_constant__ CoefficientsBackwardArgs args,
                                 int mix_count, const __grid_constant__ CoefficientsPass pass) {
  const int n = kN ? kN : args.settings.n_streams, count = 2 * n + mix_count;
  const SharedScratch scratch = thread_scratch(pass, args.scratch);
  double* sums = args.partials + int64_t{blockIdx.x} * 2 * count;
  bool is_first = true;
  for (int64_t begin = int64_t{blockIdx.x} * kWarpThreads; begin < args.tokens;
       begin += int64_t{gridDim.x} * kWarpThreads) {
    const int64_t t = begin + lane();
    const bool is_token = t < args.tokens;
    SharedTokenAdjoint token(args, n, mix_count, is_token ? t : begin, scratch);
    token.start();
    if constexpr (kHasMix<Map>) {
      if (is_token) token.run_map<Map, kN>();
    }
#pragma unroll 1
    for (int k = 0; k < count; k += kWarpThreads / 2) {
      add_logits(token, is_token, k, count, is_first, sums);
    }
    if (is_token) token.finish();
    is_first = false;
  }
}

/// Calls f(std::integral_constant<int, kN>{}) for the n of a call; kN = 0 is any.
template <class Map, int kMax = kMaxStaticStreams<Map>, class F>
Status dispatch_map_streams(int n, const F& f) {
  if constexpr (kMax > 1) {
    if (n < kMax) return dispatch_map_streams<Map, kMax - 1>(n, f);
  }
  if constexpr (kMax > 0) {
    return f(std::integral_constant<int, kMax>{});
  } else {
    return dispatch_streams(n, f);
  }
}

template <class Map>
Status map_forward(const CoefficientsArgs& args, const LogitParts& parts,
                   const CoefficientsPlan& plan, Stream stream) {
  const CoefficientSettings& s = args.settings;
  const int mix_count = mix_logit_count(s.map, s.map_settings, s.n_streams);
  return dispatch_map_streams<Map>(s.n_streams, [&](auto streams) {
    constexpr int kN = decltype(streams)::value;
    if constexpr (kInRegisters<kN>) {
      return launch(coefficient_tile_forward_kernel<Map, kN>, plan.forward.launch, stream, args,
                    mix_count, parts);
    } else {
      return launch(coefficients_forward_kernel<Map, kN>, plan.forward.launch, stream, args,
                    mix_count, plan.forward);
    }
  });
}

template <class Map>
Status map_backward(const CoefficientsBackwardArgs& args, const ReadAdjoint& read,
                    const CoefficientsPlan& plan, Stream stream) {
  const CoefficientSettings& s = args.settings;
  const int mix_count = mix_logit_count(s.map, s.map_settings, s.n_streams);
  return dispatch_map_streams<Map>(s.n_streams, [&](auto streams) {
    constexpr int kN = decltype(streams)::value;
    if constexpr (kInRegisters<kN>) {
      return launch(coefficient_tile_backward_kernel<Map, kN>, plan.backward.launch, stream, args,
                    mix_count, plan.backward, read);
    } else {
      return launch(coefficients_backward_kernel<Map, kN>, plan.backward.launch, stream, args,
                    mix_count, plan.backward);
    }
  });
}

#define HYPERSTREAMS_INSTANTIATE_MAP(Map)                                                \
  template Status map_forward<Map>(const CoefficientsArgs&, const LogitParts&,           \
                                   const CoefficientsPlan&, Stream);                     \
  template Status map_backward<Map>(const CoefficientsBackwardArgs&, const ReadAdjoint&, \
                                    const CoefficientsPlan&, Stream);

}  // namespace hyperstreams::cuda
