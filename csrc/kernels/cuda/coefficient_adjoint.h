// The adjoint of coefficients for one token: of the map, and logit by logit.
#pragma once

#include "coefficient_maps.h"
#include "coefficient_scratch.h"
#include "coefficient_token.h"

namespace hyperstreams::cuda {

/// What dL/d(value) of one logit gives.
struct LogitAdjoint {
  float logit, rms;   // to the logit itself and to its inverse rms
  float alpha, bias;  // to the parameters
};

__device__ __forceinline__ LogitAdjoint logit_adjoint(const TokenLogits& logits, int k, float grad,
                                                      const ActivationSettings& a, int group) {
  const ActivatedLogit logit = logits.activate(k, a, group);
  const float of_value = grad * static_cast<float>(a.factor);
  const float sloped = of_value * activation_slope(a.kind, logit.acted);
  LogitAdjoint to;
  to.bias = a.outside ? of_value : sloped;
  to.alpha = to.bias * (a.outside ? logit.acted : logit.z);
  const float of_z = sloped * logits.alpha[group];
  to.logit = of_z * logits.rms(k);
  to.rms = of_z * logits.row[logits.place(k)];
  return to;
}

/// The gradients that go to one token.
struct TokenGradients {
  const float *grad_pre, *grad_post, *grad_res;
  float *grad_logits, *grad_inv_rms;  // its rows; grad_inv_rms may be null
  bool per_stream;

  __device__ __forceinline__ TokenGradients(const CoefficientsBackwardArgs& args,
                                            const TokenLogits& logits, int64_t t)
      : grad_pre(row(args.grad_h_pre, t)),
        grad_post(row(args.grad_h_post, t)),
        grad_res(row(args.grad_h_res, t)),
        grad_logits(static_cast<float*>(args.grad_logits) + t * (2 * logits.n + logits.mix_count)),
        grad_inv_rms(args.grad_inv_rms ? static_cast<float*>(args.grad_inv_rms) +
                                             t * (args.settings.per_stream ? logits.n : 1)
                                       : nullptr),
        per_stream(args.settings.per_stream) {}

  __device__ __forceinline__ float gate(int k, int n) const {
    return k < n ? grad_pre[k] : grad_post[k - n];
  }

 private:
  __device__ __forceinline__ static const float* row(const RowsView& rows, int64_t t) {
    return static_cast<const float*>(rows.data) + t * rows.token_stride;
  }
};

/// What one token gives to alpha and bias, by logit.
template <int kN>
struct ParameterTerms {
  float alpha[CoefficientSizes<kN>::kLogits] = {}, bias[CoefficientSizes<kN>::kLogits] = {};
};

/// Token t in registers.
template <class Map, int kN>
__device__ __forceinline__ void token_backward(const CoefficientsBackwardArgs& args, int mix_count,
                                               int64_t t, StridedScratch scratch,
                                               ParameterTerms<kN>& terms) {
  const TokenLogits logits(args, kN, mix_count, t);
  const TokenGradients gradients(args, logits, t);
  float of_rms = 0, of_stream_rms[kN] = {};
  const auto adjoint = [&](int k, float grad, const ActivationSettings& a, int group) {
    const LogitAdjoint to = logit_adjoint(logits, k, grad, a, group);
    terms.alpha[k] = to.alpha;
    terms.bias[k] = to.bias;
    gradients.grad_logits[logits.place(k)] = to.logit;
    // Both: a choice between them would need their addresses.
    of_stream_rms[k % kN] += to.rms;
    of_rms += to.rms;
  };
  // The map comes first, so that its registers are free again.
  [[maybe_unused]] float mix[CoefficientSizes<kN>::kMix], grad_mix[CoefficientSizes<kN>::kMix];
  if constexpr (kHasMix<Map>) {
    logits.for_mix<kN>([&](int k, int m, const ActivationSettings& a, int group) {
      mix[m] = logits.activate(k, a, group).value;
    });
    Map::template backward<kN, float>(args.settings.map_settings, kN, mix, gradients.grad_res,
                                      grad_mix, scratch);
  }
  logits.for_gates<kN>([&](int k, const ActivationSettings& a, int group) {
    adjoint(k, gradients.gate(k, kN), a, group);
  });
  if constexpr (kHasMix<Map>) {
    logits.for_mix<kN>([&](int k, int m, const ActivationSettings& a, int group) {
      adjoint(k, grad_mix[m], a, group);
    });
  }
  if (!gradients.grad_inv_rms) return;
  if (!gradients.per_stream) {
    gradients.grad_inv_rms[0] = of_rms;
    return;
  }
#pragma unroll
  for (int i = 0; i < kN; ++i) gradients.grad_inv_rms[i] = of_stream_rms[i];
}

/// A token that is not in registers: first the map, then logit by logit.
class SharedTokenAdjoint {
 public:
  /// n numbers of `arrays` are the sums per stream.
  __device__ __forceinline__ SharedTokenAdjoint(const CoefficientsBackwardArgs& args, int n,
                                                int mix_count, int64_t t,
                                                const SharedScratch& scratch)
      : logits_(args, n, mix_count, t),
        gradients_(args, logits_, t),
        groups_(args.settings),
        arrays_(scratch),
        of_stream_rms_(arrays_.take<kMaxStreams>(n)),
        map_scratch_{arrays_.next, scratch.kept} {}

  /// Leaves the gradient of what the map is given in grad_logits, where `step` replaces it.
  template <class Map, int kN>
  __device__ __forceinline__ void run_map() {
    Map::template backward<kN, float>(logits_.settings.map_settings, logits_.n, MixInput{logits_},
                                      gradients_.grad_res,
                                      MixOutput{logits_, gradients_.grad_logits}, map_scratch_);
  }

  __device__ __forceinline__ void start() {
    for (int i = 0; gradients_.per_stream && i < logits_.n; ++i) of_stream_rms_[i] = 0;
  }

  /// Joint logit k, one after the other. Returns what it gives to the parameters.
  __device__ __forceinline__ LogitAdjoint step(int k) {
    const CoefficientSettings& s = logits_.settings;
    const int n = logits_.n, place = logits_.place(k);
    const LogitAdjoint to = k < 2 * n ? logit_adjoint(logits_, k, gradients_.gate(k, n),
                                                      k < n ? s.read : s.write, k < n ? 0 : 1)
                                      : logit_adjoint(logits_, k, gradients_.grad_logits[place],
                                                      s.mix, groups_.at(k - 2 * n));
    gradients_.grad_logits[place] = to.logit;
    if (gradients_.per_stream) {
      of_stream_rms_[k % n] += to.rms;
    } else {
      of_rms_ += to.rms;
    }
    return to;
  }

  __device__ __forceinline__ void finish() const {
    if (!gradients_.grad_inv_rms) return;
    if (!gradients_.per_stream) {
      gradients_.grad_inv_rms[0] = of_rms_;
      return;
    }
    for (int i = 0; i < logits_.n; ++i) gradients_.grad_inv_rms[i] = of_stream_rms_[i];
  }

 private:
  TokenLogits logits_;
  TokenGradients gradients_;
  MixGroups groups_;
  maps::Arrays<float, SharedScratch> arrays_;
  SharedArray of_stream_rms_;
  SharedScratch map_scratch_;
  float of_rms_ = 0;
};

}  // namespace hyperstreams::cuda
