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

/// logit: as activated, `raw` before its inverse rms.
__device__ __forceinline__ LogitAdjoint logit_adjoint(const LogitActivation& a,
                                                      const ActivatedLogit& logit, float raw,
                                                      float rms, float grad) {
  const float of_value = grad * a.factor;
  const float sloped = of_value * activation_slope(a.kind, logit.acted);
  LogitAdjoint to;
  to.bias = a.outside ? of_value : sloped;
  to.alpha = to.bias * (a.outside ? logit.acted : logit.z);
  const float of_z = sloped * a.scale;
  to.logit = of_z * rms;
  to.rms = of_z * raw;
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

/// First the map, then logit by logit.
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
    const LogitActivation a = k < 2 * n ? logits_.activation(k, k < n ? s.read : s.write, k >= n)
                                        : logits_.activation(k, s.mix, groups_.at(k - 2 * n));
    const float grad = k < 2 * n ? gradients_.gate(k, n) : gradients_.grad_logits[place];
    const float raw = logits_.row[place], rms = logits_.rms(k);
    const LogitAdjoint to = logit_adjoint(a, a(raw, rms), raw, rms, grad);
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
