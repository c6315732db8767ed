// Where a thread of coefficients keeps what is not in registers.
#pragma once

#include <type_traits>

#include "device/device.h"
#include "hyperstreams/maps/arrays.h"
#include "hyperstreams/plan.h"

namespace hyperstreams::cuda {

/// Whether a kernel for n = kN (0: known at run time only) holds a token's arrays in registers.
template <int kN>
constexpr bool kInRegisters = kN >= 1 && kN <= maps::kMaxRegisterStreams;

/// What a map keeps: element k of every thread lies together.
struct StridedScratch {
  float* data;
  int64_t stride;
  __device__ __forceinline__ float& operator[](int k) const { return data[k * stride]; }
};

using SharedArray = maps::Interleaved<float, kWarpThreads>;
using SharedScratch = maps::InterleavedScratch<float, kWarpThreads, StridedScratch>;

/// This thread's part of a launch's memory, for the threads of one warp per block.
__device__ __forceinline__ SharedScratch thread_scratch(const CoefficientsPass& pass,
                                                        void* scratch) {
  float* const shared = dynamic_shared<float>() + lane();
  StridedScratch kept{shared + pass.arrays * kWarpThreads, kWarpThreads};
  if (!pass.keeps_in_shared) {
    const int64_t thread = int64_t{blockIdx.x} * kWarpThreads + lane();
    kept = {static_cast<float*>(scratch) + thread, int64_t{gridDim.x} * kWarpThreads};
  }
  return {shared, kept};
}

}  // namespace hyperstreams::cuda
