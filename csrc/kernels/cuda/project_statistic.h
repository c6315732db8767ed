// The statistic of project: inverse RMS from the mean square, and its adjoint.
#pragma once

#include <cmath>

#include "device/device.h"
#include "hyperstreams/project.h"

namespace hyperstreams::cuda {

__device__ __forceinline__ float inverse_rms(float mean_square, float eps, EpsPosition position) {
  if (position == EpsPosition::kInside) return 1.0f / sqrtf(mean_square + eps);
  const float rms = sqrtf(mean_square);
  if (position == EpsPosition::kOutside) return 1.0f / (rms + eps);
  return 1.0f / (rms > eps ? rms : eps);
}

/// Factor of v in grad_x: grad_inv_rms * d inv_rms / d v, divided by v. `features`: n C.
__device__ __forceinline__ float statistic_factor(float features, float eps, EpsPosition position,
                                                  float inv_rms, float grad_inv_rms) {
  const float inv = inv_rms;
  if (position == EpsPosition::kOutside) {
    const float rms = 1.0f / inv - eps;
    return rms > 0 ? -grad_inv_rms * inv * inv / (rms * features) : 0.0f;
  }
  if (position == EpsPosition::kFloor && !(1.0f / inv > eps)) return 0.0f;
  return -grad_inv_rms * inv * inv * inv / features;
}

}  // namespace hyperstreams::cuda
