// The activation stage of one token, forward and adjoint, and what its logits are scaled with.
#pragma once

#include "coefficient_scratch.h"
#include "device/device.h"
#include "hyperstreams/coefficients.h"
#include "hyperstreams/maps/permutation.h"

namespace hyperstreams::cuda {

/// Array sizes of a kernel that holds a token in registers.
template <int kN>
struct CoefficientSizes {
  static constexpr int kMix = maps::factorial(kN) > kN* kN ? maps::factorial(kN) : kN * kN;
  static constexpr int kLogits = 2 * kN + kMix;
};

struct ActivatedLogit {
  float z;      // logit times inverse rms
  float acted;  // the activation's own value
  float value;  // h, or what the map is given
};

/// Of numbers that are activated alike.
template <int kCount>
__device__ __forceinline__ void activations(ActivationKind kind, const float (&x)[kCount],
                                            float (&acted)[kCount]) {
  if (kind == ActivationKind::kSigmoid) {
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      // At most 1, whatever x.
      const float power = maps::exp(-fabsf(x[j])), inverse = reciprocal(1 + power);
      acted[j] = x[j] < 0 ? power * inverse : inverse;
    }
  } else if (kind == ActivationKind::kTanh) {
#pragma unroll
    for (int j = 0; j < kCount; ++j) acted[j] = maps::tanh(x[j]);
  } else {
#pragma unroll
    for (int j = 0; j < kCount; ++j) acted[j] = x[j];
  }
}

/// Derivative of the activation where it has this value.
__device__ __forceinline__ float activation_slope(ActivationKind kind, float value) {
  if (kind == ActivationKind::kSigmoid) return value * (1 - value);
  if (kind == ActivationKind::kTanh) return fmaf(-value, value, 1);
  return 1;
}

/// How one logit is activated.
struct LogitActivation {
  ActivationKind kind;
  bool outside;
  float factor, offset, scale, bias;

  __device__ __forceinline__ void start(const ActivationSettings& settings, float alpha,
                                        float of_logit) {
    kind = settings.kind;
    outside = settings.outside;
    factor = static_cast<float>(settings.factor);
    offset = static_cast<float>(settings.offset);
    scale = alpha;
    bias = of_logit;
  }

  /// Logits of several tokens.
  template <int kCount>
  __device__ __forceinline__ void activate(const float (&logit)[kCount], const float (&rms)[kCount],
                                           ActivatedLogit (&to)[kCount]) const {
    float x[kCount], acted[kCount];
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      to[j].z = logit[j] * rms[j];
      x[j] = outside ? to[j].z : fmaf(scale, to[j].z, bias);
    }
    activations(kind, x, acted);
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      to[j].acted = acted[j];
      to[j].value = fmaf(factor, outside ? fmaf(scale, acted[j], bias) : acted[j], offset);
    }
  }
  __device__ __forceinline__ ActivatedLogit operator()(float logit, float rms) const {
    const float logits[1] = {logit}, of_token[1] = {rms};
    ActivatedLogit to[1];
    activate(logits, of_token, to);
    return to[0];
  }
};

/// Where joint logit k stands in a token's row.
__device__ __forceinline__ int logit_place(const CoefficientSettings& settings, int n, int k) {
  return settings.per_stream ? k % n * (2 + n) + k / n : k;
}

/// The group of one mixer logit after the other, from the first on.
class MixGroups {
 public:
  __device__ __forceinline__ explicit MixGroups(const CoefficientSettings& settings)
      : sizes_(settings.mix_group_sizes) {}

  /// Of logit m, at least the last m.
  __device__ __forceinline__ int at(int m) {
    while (m >= end_) end_ += sizes_[group_++];
    return 1 + group_;
  }

 private:
  const int* sizes_;
  int group_ = 0, end_ = 0;
};

/// The logits of token t in joint order: read n, write n, then the mixer's own.
struct TokenLogits {
  const CoefficientSettings& settings;
  int n, mix_count;
  const float *row, *inv_rms;  // of the token; inv_rms may be null
  const float *alpha, *bias;

  template <class Args>
  __device__ __forceinline__ TokenLogits(const Args& args, int n_streams, int mix, int64_t t)
      : settings(args.settings),
        n(n_streams),
        mix_count(mix),
        row(static_cast<const float*>(args.logits.data) + t * args.logits.token_stride),
        inv_rms(args.inv_rms.data
                    ? static_cast<const float*>(args.inv_rms.data) + t * args.inv_rms.token_stride
                    : nullptr),
        alpha(static_cast<const float*>(args.alpha)),
        bias(static_cast<const float*>(args.bias)) {}

  __device__ __forceinline__ int place(int k) const { return logit_place(settings, n, k); }
  __device__ __forceinline__ float rms(int k) const {
    return inv_rms ? inv_rms[settings.per_stream ? k % n : 0] : 1;
  }

  __device__ __forceinline__ LogitActivation activation(int k, const ActivationSettings& a,
                                                        int group) const {
    LogitActivation of_logit;
    of_logit.start(a, alpha[group], bias[k]);
    return of_logit;
  }
  __device__ __forceinline__ float activate(int k, const ActivationSettings& a, int group) const {
    return activation(k, a, group)(row[place(k)], rms(k)).value;
  }

  /// Calls f(k, activation, group) for the read and write logits k.
  template <class F>
  __device__ __forceinline__ void for_gates(const F& f) const {
#pragma unroll 1
    for (int k = 0; k < 2 * n; ++k) f(k, k < n ? settings.read : settings.write, k < n ? 0 : 1);
  }
};

/// What the map is given where a token is not in registers: a read evaluates the activation.
struct MixInput {
  const TokenLogits& logits;
  __device__ __forceinline__ float operator[](int m) const {
    const int group = MixGroups(logits.settings).at(m);
    return logits.activate(2 * logits.n + m, logits.settings.mix, group);
  }
};

/// The mixer's elements of a token's row, which has the order of the logits.
struct MixOutput {
  const TokenLogits& logits;
  float* row;
  __device__ __forceinline__ float& operator[](int m) const {
    return row[logits.place(2 * logits.n + m)];
  }
};

}  // namespace hyperstreams::cuda
