// Second stage of sums over tokens: columns of partials [parts, stride] -> out [columns], in
// double.
//
// Block k owns column k: thread r adds rows r, r + 256, ... in ascending order, then the block sums
// its threads in the defined order. The same bits for the same number of parts; 0 parts give 0.
#pragma once

#include "device/device.h"

namespace hyperstreams::cuda {

constexpr int kSumPartialsThreads = 256;

/// Out: float, or double. static: every .cu that includes this header gets its own copy, without
/// relocatable device code.
template <class Out>
static __global__ void __launch_bounds__(kSumPartialsThreads)
    sum_partials_kernel(const double* partials,  // [parts, stride]
                        int64_t parts, int stride,
                        Out* out) {  // [columns]
  double sum = 0;
  for (int64_t part = threadIdx.x; part < parts; part += kSumPartialsThreads) {
    sum += partials[part * stride + blockIdx.x];
  }
  sum = block_sum<kSumPartialsThreads>(sum, shared<BlockSumStorage<double, kSumPartialsThreads>>());
  if (threadIdx.x == 0) out[blockIdx.x] = static_cast<Out>(sum);
}

template <class Out = float>
static inline Status sum_partials(const double* partials, int64_t parts, int stride, int columns,
                                  void* out, Stream stream) {
  const LaunchShape shape{columns, 1, kSumPartialsThreads, 1};
  return launch(sum_partials_kernel<Out>, shape, stream, partials, parts, stride,
                static_cast<Out*>(out));
}

}  // namespace hyperstreams::cuda
