// The rows of mix_write that belong to the branch: y, whose dtype may differ from that of X, and
// bias. The dtype is a branch that all threads take alike, so that no kernel is a template over it.
#pragma once

#include "device/device.h"

namespace hyperstreams::cuda {

/// y[0, kCount) + bias[0, kCount), of which the first `count` exist; the rest is 0. `bias` may be
/// null. kWhole as in load_vector.
template <bool kWhole, int kCount>
__device__ __forceinline__ void load_branch(DType dtype, const void* y, int64_t offset,
                                            const float* bias, int64_t count, float (&to)[kCount]) {
  if (dtype == DType::kFloat32) {
    load_floats<kWhole>(static_cast<const float*>(y) + offset, count, to);
  } else if (dtype == DType::kBFloat16) {
    load_floats<kWhole>(static_cast<const BFloat16*>(y) + offset, count, to);
  } else {
    load_floats<kWhole>(static_cast<const Float16*>(y) + offset, count, to);
  }
  if (bias) {
    float add[kCount];
    load_floats<kWhole>(bias, count, add);
#pragma unroll
    for (int k = 0; k < kCount; ++k) to[k] += add[k];
  }
}

/// Rounds and writes the first `count` values to grad_y.
template <bool kWhole, int kCount>
__device__ __forceinline__ void store_branch(DType dtype, void* grad_y, int64_t offset,
                                             int64_t count, const float (&from)[kCount]) {
  if (dtype == DType::kFloat32) {
    store_floats<kWhole>(static_cast<float*>(grad_y) + offset, count, from);
  } else if (dtype == DType::kBFloat16) {
    store_floats<kWhole>(static_cast<BFloat16*>(grad_y) + offset, count, from);
  } else {
    store_floats<kWhole>(static_cast<Float16*>(grad_y) + offset, count, from);
  }
}

/// dtypes and n that the kernels take.
inline bool supports_mix_write(DType dtype, DType y_dtype) {
  return dtype != DType::kFloat64 && y_dtype != DType::kFloat64;
}

}  // namespace hyperstreams::cuda
