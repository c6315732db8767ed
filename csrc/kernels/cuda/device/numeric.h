// Stored types and their conversion to and from float, rounding to nearest even.
#pragma once

#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace hyperstreams::cuda {

struct BFloat16 {
  uint16_t bits;
};

struct Float16 {
  uint16_t bits;
};

__device__ __forceinline__ float to_float(float value) { return value; }

__device__ __forceinline__ float to_float(BFloat16 value) {
  return float_from_bits(static_cast<uint32_t>(value.bits) << 16);
}

__device__ __forceinline__ float to_float(Float16 value) {
#ifdef __CUDACC__
  return __half2float(__ushort_as_half(value.bits));
#else
  return emulation::half_to_float(value.bits);
#endif
}

template <class S>
__device__ __forceinline__ S from_float(float value);

template <>
__device__ __forceinline__ float from_float<float>(float value) {
  return value;
}

template <>
__device__ __forceinline__ BFloat16 from_float<BFloat16>(float value) {
#ifdef __CUDACC__
  return {__bfloat16_as_ushort(__float2bfloat16_rn(value))};
#else
  return {emulation::float_to_bfloat(value)};
#endif
}

template <>
__device__ __forceinline__ Float16 from_float<Float16>(float value) {
#ifdef __CUDACC__
  return {__half_as_ushort(__float2half_rn(value))};
#else
  return {emulation::float_to_half(value)};
#endif
}

/// 1 / x to within a rounding, without the branch of the division; where either is not a normal
/// number, NaN or that, or 0 or infinite.
__device__ __forceinline__ float reciprocal(float x) {
#ifdef __CUDACC__
  float approximate;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(approximate) : "f"(x));
  return fmaf(approximate, fmaf(-x, approximate, 1.0f), approximate);
#else
  return 1 / x;
#endif
}

}  // namespace hyperstreams::cuda
