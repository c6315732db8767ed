// Coefficients of one token, the same for all threads that work on it.
#pragma once

#include "device/device.h"

namespace hyperstreams::cuda {

/// kHeld values in registers, loaded once.
template <int kHeld>
struct Weights {
  float value[kHeld];
  __device__ __forceinline__ Weights(const float* from) {
#pragma unroll
    for (int k = 0; k < kHeld; ++k) value[k] = from[k];
  }
  __device__ __forceinline__ float operator()(int k) const { return value[k]; }
};

/// Too many for registers, or an unknown number: loaded, from the nearest cache, where used.
template <>
struct Weights<0> {
  const float* value;
  __device__ __forceinline__ Weights(const float* from) : value(from) {}
  __device__ __forceinline__ float operator()(int k) const { return value[k]; }
};

}  // namespace hyperstreams::cuda
