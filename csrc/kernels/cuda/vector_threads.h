// Kernels in which a thread owns one vector of channels of a token: block x along the channels, y
// along the tokens, in strides of the grid.
#pragma once

#include "device/device.h"

namespace hyperstreams::cuda {

constexpr int kVectorThreads = 256;

/// This thread's channels, from c on, and tokens: t, t + token_step, ...
struct VectorThread {
  int64_t t, c, token_step;
  __device__ __forceinline__ explicit VectorThread(int vector)
      : t(int64_t{blockIdx.y} * blockDim.y + threadIdx.y),
        c((int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * vector),
        token_step(int64_t{gridDim.y} * blockDim.y) {}
};

}  // namespace hyperstreams::cuda
