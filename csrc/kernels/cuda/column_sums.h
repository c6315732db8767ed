// Sums over tokens that are rows of channels (gradients of bias and scale), in two stages.
//
// First stage, in the op's own kernel: block x along the channels, y along tokens; blockIdx.y is
// the part, a range of tokens. A thread adds every block_y-th token of its part, ascending, then
// the block adds its threads y = 0, 1, ... and writes one row of partials. Second stage: a thread
// owns a column and adds the parts in ascending order, in double. The same bits for the same shape.
#pragma once

#include "device/device.h"

namespace hyperstreams::cuda {

constexpr int kColumnThreads = 256;

template <int kVector>
struct ColumnStorage {
  float sum[kColumnThreads * kVector];  // [block_y, block_x, kVector]
};

/// This thread's tokens: first, first + step, ... below end.
struct PartTokens {
  int64_t first, end;
  int step;
  __device__ __forceinline__ PartTokens(int64_t tokens, int64_t tokens_per_part) {
    const int64_t begin = blockIdx.y * tokens_per_part;
    first = begin + threadIdx.y;
    step = static_cast<int>(blockDim.y);
    end = begin + tokens_per_part < tokens ? begin + tokens_per_part : tokens;
  }
};

/// Adds `value` over y and writes the block's channels, from c of `width`, to `partial` [width].
/// Every thread of the block takes part. `storage` is free again on return.
template <int kVector>
__device__ __forceinline__ void write_column_sums(const float (&value)[kVector],
                                                  ColumnStorage<kVector>& storage, int64_t c,
                                                  int64_t width, float* partial) {
  const int columns = static_cast<int>(blockDim.x) * kVector;
  const int rank = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
#pragma unroll
  for (int k = 0; k < kVector; ++k) storage.sum[rank * kVector + k] = value[k];
  block_barrier();
  if (rank < columns && c + rank < width) {
    float sum = storage.sum[rank];
    for (int y = 1; y < static_cast<int>(blockDim.y); ++y) sum += storage.sum[y * columns + rank];
    partial[c + rank] = sum;
  }
  block_barrier();
}

/// static: every .cu that includes this header gets its own copy, without relocatable device code.
static __global__ void __launch_bounds__(kColumnThreads)
    add_parts_kernel(const float* partials,  // [parts, stride]
                     int64_t parts, int64_t stride, int64_t columns,
                     float* out) {  // [columns]
  const int64_t column = int64_t{blockIdx.x} * kColumnThreads + threadIdx.x;
  if (column >= columns) return;
  double sum = 0;
  for (int64_t part = 0; part < parts; ++part) sum += partials[part * stride + column];
  out[column] = static_cast<float>(sum);
}

static inline Status add_parts(const void* partials, int64_t parts, int64_t stride, int64_t columns,
                               void* out, Stream stream) {
  const LaunchShape shape{(columns + kColumnThreads - 1) / kColumnThreads, 1, kColumnThreads, 1};
  return launch(add_parts_kernel, shape, stream, static_cast<const float*>(partials), parts, stride,
                columns, static_cast<float*>(out));
}

}  // namespace hyperstreams::cuda
