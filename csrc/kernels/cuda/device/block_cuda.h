// The device layer on hardware: barrier, shuffles, sums (CUB), shared memory, launch.
#pragma once

#include <cuda_runtime.h>

#include <cub/block/block_reduce.cuh>
#include <cub/warp/warp_reduce.cuh>

#include "hyperstreams/cuda.h"
#include "hyperstreams/plan.h"

namespace hyperstreams::cuda {

constexpr int kWarpThreads = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

__device__ __forceinline__ float float_from_bits(uint32_t bits) { return __uint_as_float(bits); }

/// `pointer` as one to words, of whose size it is a multiple.
template <class Word, class S>
__device__ __forceinline__ Word* aligned(S* pointer) {
  return reinterpret_cast<Word*>(pointer);
}

/// This thread's place in its warp; blocks are one-dimensional where it is used.
__device__ __forceinline__ int lane() { return threadIdx.x % kWarpThreads; }

/// All threads of the block meet here; what each wrote before is visible to all after.
__device__ __forceinline__ void block_barrier() { __syncthreads(); }

/// The value of the lane `delta` above (lanes without one get their own). Every lane takes part.
template <class T>
__device__ __forceinline__ T warp_shuffle_down(T value, int delta) {
  return __shfl_down_sync(kAllLanes, value, delta);
}

/// The value of lane() ^ mask. Every lane takes part.
template <class T>
__device__ __forceinline__ T warp_shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(kAllLanes, value, mask);
}

/// Sum over the warp, valid in lane 0. Every lane takes part.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
  using Reduce = cub::WarpReduce<T>;
  // A full warp is reduced with shuffles alone, so the storage holds nothing and may be local.
  static_assert(sizeof(typename Reduce::TempStorage) == 1, "CUB changed its warp reduction");
  typename Reduce::TempStorage storage;
  return Reduce(storage).Sum(value);
}

/// Shared scratch of one block_sum.
template <class T, int kThreads>
struct BlockSumStorage {
  typename cub::BlockReduce<T, kThreads>::TempStorage cub;
};

/// Sum over the kThreads threads of a one-dimensional block, valid in thread 0. Every thread takes
/// part. `storage` may be used again after a block_barrier.
template <int kThreads, class T>
__device__ __forceinline__ T block_sum(T value, BlockSumStorage<T, kThreads>& storage) {
  return cub::BlockReduce<T, kThreads>(storage.cub).Sum(value);
}

/// The block's one object of type Storage, uninitialised at the start of the block.
template <class Storage>
__device__ __forceinline__ Storage& shared() {
  __shared__ alignas(16) unsigned char bytes[sizeof(Storage)];
  return *reinterpret_cast<Storage*>(bytes);
}

/// The block's LaunchShape::shared_bytes of memory, uninitialised at the start of the block.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ uint4 words[];
  return reinterpret_cast<T*>(words);
}

/// What every kernel may have without asking.
constexpr int kDefaultSharedBytes = 48 << 10;

/// Queues kernel(arguments...) on the stream.
template <class... Parameters, class... Arguments>
Status launch(void (*kernel)(Parameters...), const LaunchShape& shape, Stream stream,
              const Arguments&... arguments) {
  if (shape.grid_x > kMaxGridX || shape.grid_y > kMaxGridY) return Status::kGridTooLarge;
  const dim3 grid(static_cast<unsigned>(shape.grid_x), static_cast<unsigned>(shape.grid_y));
  const dim3 block(shape.block_x, shape.block_y);
  if (shape.shared_bytes > kDefaultSharedBytes) {
    const cudaError_t error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shape.shared_bytes);
    if (error != cudaSuccess) return static_cast<Status>(error);
  }
  kernel<<<grid, block, shape.shared_bytes, stream>>>(arguments...);
  return static_cast<Status>(cudaGetLastError());
}

inline const char* runtime_message(Status status) {
  return cudaGetErrorString(static_cast<cudaError_t>(status));
}

}  // namespace hyperstreams::cuda
