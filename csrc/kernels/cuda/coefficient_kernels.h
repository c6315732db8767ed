// The kernels of coefficients as templates over the map; what they compute and move stands in
// coefficients.cu. Included by map_<name>.cu alone, so that each map is compiled once.
#pragma once

#include "coefficient_adjoint.h"
#include "coefficient_maps.h"
#include "coefficient_scratch.h"
#include "coefficient_token.h"
#include "dispatch.h"

namespace hyperstreams::cuda {

template <class Map, int kN>
__global__ void __launch_bounds__(kWarpThreads, 1)
    coefficients_forward_kernel(const __grid_constant__ CoefficientsArgs args, int mix_count,
                                const __grid_constant__ CoefficientsPass pass) {
  const int n = kN ? kN : args.settings.n_streams;
  const auto scratch = thread_scratch<kN>(pass, args.scratch);
  for (int64_t t = int64_t{blockIdx.x} * kWarpThreads + lane(); t < args.tokens;
       t += int64_t{gridDim.x} * kWarpThreads) {
    const TokenLogits logits(args, n, mix_count, t);
    float* h_pre = static_cast<float*>(args.h_pre) + t * n;
    float* h_post = static_cast<float*>(args.h_post) + t * n;
    logits.for_gates<kN>([&](int k, const ActivationSettings& a, int group) {
      (k < n ? h_pre[k] : h_post[k - n]) = logits.activate(k, a, group).value;
    });
    if constexpr (kHasMix<Map>) {
      const MapSettings& settings = args.settings.map_settings;
      float* h_res = static_cast<float*>(args.h_res) + t * n * n;
      if constexpr (kInRegisters<kN>) {
        float mix[CoefficientSizes<kN>::kMix];
        logits.for_mix<kN>([&](int k, int m, const ActivationSettings& a, int group) {
          mix[m] = logits.activate(k, a, group).value;
        });
        Map::template forward<kN, float>(settings, n, mix, h_res, scratch);
      } else {
        Map::template forward<kN, float>(settings, n, MixInput{logits}, h_res, scratch);
      }
    }
  }
}

/// Adds the sums over the warp of value[0, count) to `sums`, or sets them in the first sweep.
template <int kN, int kCount>
__device__ __forceinline__ void add_to_partial(const float (&value)[kCount], int count,
                                               bool is_first, double* sums) {
#pragma unroll
  for (int begin = 0; begin < kCount; begin += kWarpThreads) {
    if (begin >= count) break;
    float part[kWarpThreads];
#pragma unroll
    for (int k = 0; k < kWarpThreads; ++k) {
      part[k] = begin + k < kCount && begin + k < count ? value[begin + k] : 0;
    }
    const float sum = warp_sums(part);
    const int k = begin + lane();
    if (k < count) sums[k] = is_first ? sum : sums[k] + sum;
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
  const auto scratch = thread_scratch<kN>(pass, args.scratch);
  double* sums = args.partials + int64_t{blockIdx.x} * 2 * count;
  bool is_first = true;
  for (int64_t begin = int64_t{blockIdx.x} * kWarpThreads; begin < args.tokens;
       begin += int64_t{gridDim.x} * kWarpThreads) {
    const int64_t t = begin + lane();
    const bool is_token = t < args.tokens;
    if constexpr (kInRegisters<kN>) {
      ParameterTerms<kN> terms;
      if (is_token) token_backward<Map, kN>(args, mix_count, t, scratch, terms);
      add_to_partial<kN>(terms.alpha, count, is_first, sums);
      add_to_partial<kN>(terms.bias, count, is_first, sums + count);
    } else {
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
    }
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
Status map_forward(const CoefficientsArgs& args, const CoefficientsPlan& plan, Stream stream) {
  const CoefficientSettings& s = args.settings;
  return dispatch_map_streams<Map>(s.n_streams, [&](auto streams) {
    return launch(coefficients_forward_kernel<Map, decltype(streams)::value>, plan.forward.launch,
                  stream, args, mix_logit_count(s.map, s.map_settings, s.n_streams), plan.forward);
  });
}

template <class Map>
Status map_backward(const CoefficientsBackwardArgs& args, const CoefficientsPlan& plan,
                    Stream stream) {
  const CoefficientSettings& s = args.settings;
  return dispatch_map_streams<Map>(s.n_streams, [&](auto streams) {
    return launch(coefficients_backward_kernel<Map, decltype(streams)::value>, plan.backward.launch,
                  stream, args, mix_logit_count(s.map, s.map_settings, s.n_streams), plan.backward);
  });
}

#define HYPERSTREAMS_INSTANTIATE_MAP(Map)                                                     \
  template Status map_forward<Map>(const CoefficientsArgs&, const CoefficientsPlan&, Stream); \
  template Status map_backward<Map>(const CoefficientsBackwardArgs&, const CoefficientsPlan&, \
                                    Stream);

}  // namespace hyperstreams::cuda
