// The kernels of coefficients as templates over the map; what they compute and move stands in
// coefficients.cu. Included by map_<name>.cu alone, so that each map is compiled once.
#pragma once

#include <type_traits>

#include "coefficient_maps.h"
#include "coefficient_token.h"
#include "hyperstreams/maps/free.h"
#include "hyperstreams/maps/identity.h"

namespace hyperstreams::cuda {

/// Maps that exist for few n compile each of them.
template <class Map>
constexpr int kMaxStaticStreams = Map::kMaxStaticStreams;
template <>
constexpr int kMaxStaticStreams<maps::Free> = 0;
template <>
constexpr int kMaxStaticStreams<maps::Identity> = 0;

template <class Map>
constexpr bool kHasMix = !std::is_same_v<Map, maps::Identity>;

/// This thread's part of the launch's scratch.
__device__ __forceinline__ StridedScratch thread_scratch(void* scratch) {
  const int64_t thread = int64_t{blockIdx.x} * kWarpThreads + threadIdx.x;
  return {static_cast<float*>(scratch) + thread, int64_t{gridDim.x} * kWarpThreads};
}

template <class Map, int kN>
__global__ void __launch_bounds__(kWarpThreads, 1)
    coefficients_forward_kernel(const __grid_constant__ CoefficientsArgs args, int mix_count) {
  const int n = kN ? kN : args.settings.n_streams;
  for (int64_t t = int64_t{blockIdx.x} * kWarpThreads + threadIdx.x; t < args.tokens;
       t += int64_t{gridDim.x} * kWarpThreads) {
    const TokenLogits logits(args, n, mix_count, t);
    float* h_pre = static_cast<float*>(args.h_pre) + t * n;
    float* h_post = static_cast<float*>(args.h_post) + t * n;
    logits.for_gates<kN>([&](int k, const ActivationSettings& a, int group) {
      (k < n ? h_pre[k] : h_post[k - n]) = logits.activate(k, a, group).value;
    });
    if constexpr (kHasMix<Map>) {
      float mix[CoefficientSizes<kN>::kMix];
      logits.for_mix<kN>([&](int k, int m, const ActivationSettings& a, int group) {
        mix[m] = logits.activate(k, a, group).value;
      });
      Map::template forward<kN, float>(args.settings.map_settings, n, mix,
                                       static_cast<float*>(args.h_res) + t * n * n,
                                       thread_scratch(args.scratch));
    }
  }
}

/// Adds the sums over the warp of value[0, count) to `sums`, or sets them in the first sweep.
template <int kN, int kCount>
__device__ __forceinline__ void add_to_partial(const float (&value)[kCount], int count,
                                               bool is_first, double* sums) {
  [[maybe_unused]] constexpr int kUnroll = CoefficientSizes<kN>::kUnroll > 1 ? kCount : 1;
#pragma unroll(kUnroll)
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

/// What one token gives to alpha and bias, by logit.
template <int kN>
struct ParameterTerms {
  float alpha[CoefficientSizes<kN>::kLogits] = {}, bias[CoefficientSizes<kN>::kLogits] = {};
};

/// The adjoint of token t.
template <class Map, int kN>
__device__ __forceinline__ void token_backward(const CoefficientsBackwardArgs& args, int mix_count,
                                               int64_t t, ParameterTerms<kN>& terms) {
  using Sizes = CoefficientSizes<kN>;
  const int n = kN ? kN : args.settings.n_streams;
  const TokenLogits logits(args, n, mix_count, t);
  const bool per_stream = args.settings.per_stream;
  float* grad_logits = static_cast<float*>(args.grad_logits) + t * (2 * n + mix_count);
  float of_rms = 0, of_stream_rms[Sizes::kStreams] = {};
  const auto adjoint = [&](int k, float grad, const ActivationSettings& a, int group) {
    const ActivatedLogit logit = logits.activate(k, a, group);
    const float of_value = grad * static_cast<float>(a.factor);
    const float sloped = of_value * activation_slope(a.kind, logit.acted);
    terms.bias[k] = a.outside ? of_value : sloped;
    terms.alpha[k] = terms.bias[k] * (a.outside ? logit.acted : logit.z);
    const float of_z = sloped * logits.alpha[group];
    const int place = logits.place(k);
    grad_logits[place] = of_z * logits.rms(k);
    const float of_this_rms = of_z * logits.row[place];
    if (per_stream) {
      of_stream_rms[k % n] += of_this_rms;
    } else {
      of_rms += of_this_rms;
    }
  };

  const float* grad_pre =
      static_cast<const float*>(args.grad_h_pre.data) + t * args.grad_h_pre.token_stride;
  const float* grad_post =
      static_cast<const float*>(args.grad_h_post.data) + t * args.grad_h_post.token_stride;
  logits.for_gates<kN>([&](int k, const ActivationSettings& a, int group) {
    adjoint(k, k < n ? grad_pre[k] : grad_post[k - n], a, group);
  });
  if constexpr (kHasMix<Map>) {
    float mix[Sizes::kMix], grad_mix[Sizes::kMix];
    logits.for_mix<kN>([&](int k, int m, const ActivationSettings& a, int group) {
      mix[m] = logits.activate(k, a, group).value;
    });
    const float* grad_res =
        static_cast<const float*>(args.grad_h_res.data) + t * args.grad_h_res.token_stride;
    Map::template backward<kN, float>(args.settings.map_settings, n, mix, grad_res, grad_mix,
                                      thread_scratch(args.scratch));
    logits.for_mix<kN>([&](int k, int m, const ActivationSettings& a, int group) {
      adjoint(k, grad_mix[m], a, group);
    });
  }
  if (!args.grad_inv_rms) return;
  float* grad_inv_rms = static_cast<float*>(args.grad_inv_rms);
  if (!per_stream) {
    grad_inv_rms[t] = of_rms;
    return;
  }
#pragma unroll
  for (int i = 0; i < Sizes::kStreams; ++i) {
    if (i < n) grad_inv_rms[t * n + i] = of_stream_rms[i];
  }
}

template <class Map, int kN>
__global__ void __launch_bounds__(kWarpThreads, 1)
    coefficients_backward_kernel(const __grid_constant__ CoefficientsBackwardArgs args,
                                 int mix_count) {
  const int count = 2 * (kN ? kN : args.settings.n_streams) + mix_count;
  double* partial = args.partials + int64_t{blockIdx.x} * 2 * count;
  bool is_first = true;
  for (int64_t begin = int64_t{blockIdx.x} * kWarpThreads; begin < args.tokens;
       begin += int64_t{gridDim.x} * kWarpThreads) {
    ParameterTerms<kN> terms;
    const int64_t t = begin + lane();
    if (t < args.tokens) token_backward<Map, kN>(args, mix_count, t, terms);
    add_to_partial<kN>(terms.alpha, count, is_first, partial);
    add_to_partial<kN>(terms.bias, count, is_first, partial + count);
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
    if (n == 2) return f(std::integral_constant<int, 2>{});
    if (n == 4) return f(std::integral_constant<int, 4>{});
    return f(std::integral_constant<int, 0>{});
  }
}

template <class Map>
Status map_forward(const CoefficientsArgs& args, const CoefficientsPlan& plan, Stream stream) {
  const CoefficientSettings& s = args.settings;
  return dispatch_map_streams<Map>(s.n_streams, [&](auto streams) {
    return launch(coefficients_forward_kernel<Map, decltype(streams)::value>, plan.forward, stream,
                  args, mix_logit_count(s.map, s.map_settings, s.n_streams));
  });
}

template <class Map>
Status map_backward(const CoefficientsBackwardArgs& args, const CoefficientsPlan& plan,
                    Stream stream) {
  const CoefficientSettings& s = args.settings;
  return dispatch_map_streams<Map>(s.n_streams, [&](auto streams) {
    return launch(coefficients_backward_kernel<Map, decltype(streams)::value>, plan.backward,
                  stream, args, mix_logit_count(s.map, s.map_settings, s.n_streams));
  });
}

#define HYPERSTREAMS_INSTANTIATE_MAP(Map)                                                     \
  template Status map_forward<Map>(const CoefficientsArgs&, const CoefficientsPlan&, Stream); \
  template Status map_backward<Map>(const CoefficientsBackwardArgs&, const CoefficientsPlan&, \
                                    Stream);

}  // namespace hyperstreams::cuda
