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

__device__ __forceinline__ float activation(ActivationKind kind, float x) {
  if (kind == ActivationKind::kSigmoid) return 1 / (1 + maps::exp(-x));
  if (kind == ActivationKind::kTanh) return maps::tanh(x);
  return x;
}

/// Derivative of the activation where it has this value.
__device__ __forceinline__ float activation_slope(ActivationKind kind, float value) {
  if (kind == ActivationKind::kSigmoid) return value * (1 - value);
  if (kind == ActivationKind::kTanh) return fmaf(-value, value, 1);
  return 1;
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

  /// Where joint logit k stands in the row, and which stream it belongs to when per_stream.
  __device__ __forceinline__ int place(int k) const {
    return settings.per_stream ? k % n * (2 + n) + k / n : k;
  }
  __device__ __forceinline__ float rms(int k) const {
    return inv_rms ? inv_rms[settings.per_stream ? k % n : 0] : 1;
  }

  __device__ __forceinline__ ActivatedLogit activate(int k, const ActivationSettings& a,
                                                     int group) const {
    ActivatedLogit logit;
    logit.z = row[place(k)] * rms(k);
    const float scale = alpha[group];
    const float x = a.outside ? logit.z : fmaf(scale, logit.z, bias[k]);
    logit.acted = activation(a.kind, x);
    const float h = a.outside ? fmaf(scale, logit.acted, bias[k]) : logit.acted;
    logit.value = fmaf(static_cast<float>(a.factor), h, static_cast<float>(a.offset));
    return logit;
  }

  /// Calls f(k, activation, group) for the read and write logits k.
  template <int kN, class F>
  __device__ __forceinline__ void for_gates(const F& f) const {
    [[maybe_unused]] constexpr int kUnroll = kInRegisters<kN> ? 2 * kN : 1;
#pragma unroll(kUnroll)
    for (int k = 0; k < 2 * n; ++k) f(k, k < n ? settings.read : settings.write, k < n ? 0 : 1);
  }

  /// Calls f(k, m, activation, group) for the mixer's logits m = k - 2n, in order.
  template <int kN, class F>
  __device__ __forceinline__ void for_mix(const F& f) const {
    static_assert(kInRegisters<kN>);
    MixGroups groups(settings);
#pragma unroll
    for (int m = 0; m < CoefficientSizes<kN>::kMix; ++m) {
      if (m < mix_count) f(2 * n + m, m, settings.mix, groups.at(m));
    }
  }
};

/// What the map is given where a token is not in registers: a read evaluates the activation.
struct MixInput {
  const TokenLogits& logits;
  __device__ __forceinline__ float operator[](int m) const {
    const int group = MixGroups(logits.settings).at(m);
    return logits.activate(2 * logits.n + m, logits.settings.mix, group).value;
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
