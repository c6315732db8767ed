// One column of partial sums, in ascending order of rows.
#pragma once

#include "device/device.h"

namespace hyperstreams::cuda {

/// from[0] + from[stride] + ..., `rows` of them; kAtOnce loads are in flight at a time.
template <int kAtOnce = 8>
__device__ __forceinline__ float add_rows(const float* from, int64_t rows, int64_t stride) {
  float sum = 0;
  for (int64_t row = 0; row < rows; row += kAtOnce) {
    float value[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      value[k] = row + k < rows ? from[(row + k) * stride] : 0;
    }
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) sum += value[k];
  }
  return sum;
}

}  // namespace hyperstreams::cuda
