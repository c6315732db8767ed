// The device layer on hardware: barrier, shuffles, sums (CUB), shared memory, launch.
#pragma once

#include <cuda_runtime.h>

#include <cub/block/block_reduce.cuh>

#include "hyperstreams/cuda.h"
#include "hyperstreams/plan.h"

namespace hyperstreams::cuda {

constexpr int kWarpThreads = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

__device__ __forceinline__ float float_from_bits(uint32_t bits) { return __uint_as_float(bits); }
__device__ __forceinline__ uint32_t bits_from_float(float value) { return __float_as_uint(value); }

/// `pointer` as one to words, of whose size it is a multiple.
template <class Word, class S>
__device__ __forceinline__ Word* aligned(S* pointer) {
  return reinterpret_cast<Word*>(pointer);
}

/// One access to global memory. Plain assignment is taken apart by the compiler where the words are
/// made of smaller elements.
__device__ __forceinline__ void store_words(uint4* to, uint4 words) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)),
               "r"(words.x), "r"(words.y), "r"(words.z), "r"(words.w)
               : "memory");
}
__device__ __forceinline__ void store_words(uint2* to, uint2 words) {
  asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(__cvta_generic_to_global(to)), "r"(words.x),
               "r"(words.y)
               : "memory");
}

/// The same value, of which the compiler knows nothing: what is computed from it stays where it
/// is, instead of in registers from before a loop on.
__device__ __forceinline__ int64_t opaque(int64_t value) {
  asm volatile("" : "+l"(value));
  return value;
}
__device__ __forceinline__ int opaque(int value) {
  asm volatile("" : "+r"(value));
  return value;
}
__device__ __forceinline__ uint32_t opaque(uint32_t value) {
  asm("" : "+r"(value));
  return value;
}

/// The same value in a register of its own, to have a place in a vector of registers beside the
/// place that the value has in another one; otherwise every use of either is preceded by copies.
/// For one-dimensional blocks.
__device__ __forceinline__ uint32_t own_register(uint32_t value) { return value ^ threadIdx.y; }

/// This thread's place in its warp; blocks are one-dimensional where it is used.
__device__ __forceinline__ int lane() { return threadIdx.x % kWarpThreads; }

/// All threads of the block meet here; what each wrote before is visible to all after.
__device__ __forceinline__ void block_barrier() { __syncthreads(); }

/// The lanes of the warp meet here; what each wrote before is visible to all after.
__device__ __forceinline__ void warp_barrier() { __syncwarp(); }

/// The value of lane() ^ mask. Every lane takes part.
template <class T>
__device__ __forceinline__ T warp_shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(kAllLanes, value, mask);
}

/// The value of lane `source`. Every lane takes part.
template <class T>
__device__ __forceinline__ T warp_shuffle(T value, int source) {
  return __shfl_sync(kAllLanes, value, source);
}

/// Whether any lane's value is true. Every lane takes part.
__device__ __forceinline__ bool warp_any(bool value) { return __any_sync(kAllLanes, value); }

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

/// Copies 16 bytes to shared memory. They may arrive as late as the finish_copies of this thread
/// that covers their group; other threads see them after a block_barrier that follows it.
__device__ __forceinline__ void copy_async(uint4* to, const uint4* from) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from) : "memory");
}

/// The same, but zeros arrive where there is nothing to copy; `from` is then not read. For what one
/// pass over memory reads in pieces of a line: the rest of it is brought near.
__device__ __forceinline__ void copy_async(uint4* to, const uint4* from, bool exists) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(address), "l"(from),
               "r"(exists ? 16 : 0)
               : "memory");
}

/// The copies of this thread since the last call are a group.
__device__ __forceinline__ void end_copy_group() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

/// Waits for all of this thread's groups but the last kLeft.
template <int kLeft>
__device__ __forceinline__ void finish_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

/// sum += a b over the warp, where a is [16, 16] and b [16, 8], of bfloat16 in pairs of which the
/// first is in the lower half. Every lane takes part. With g = lane / 4 and q = lane % 4 a lane
/// holds
///   a:   rows g, g + 8, g, g + 8 in columns 2q + {0, 1}, the same, 2q + 8 + {0, 1}, the same
///   b:   rows 2q + {0, 1}, 2q + 8 + {0, 1} of column g
///   sum: row g of columns 2q, 2q + 1, then row g + 8 of the same
__device__ __forceinline__ void multiply_add(float (&sum)[4], const uint32_t (&a)[4],
                                             const uint32_t (&b)[2]) {
  // volatile: where lanes part ways it would be undefined, and so must not be moved there.
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// The same with half the columns of a and rows of b: a holds rows g, g + 8 in columns 2q + {0, 1},
/// b rows 2q + {0, 1} of column g.
__device__ __forceinline__ void multiply_add_half(float (&sum)[4], uint32_t a, uint32_t a8,
                                                  uint32_t b) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a), "r"(a8), "r"(b));
}

/// Four matrices of 8 x 8 elements of 16 bits in shared memory, transposed: lane 8m + r names row r
/// of matrix m, 16 bytes, and word m of a lane is rows 2q, 2q + 1 of column g of matrix m. Every
/// lane takes part.
__device__ __forceinline__ void load_transposed(uint32_t (&words)[4], const uint4* row) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(address)
               : "memory");
}

/// Blocks per multiprocessor that a kernel is compiled for: `chosen` (0: whatever the compiler
/// finds) with compute capability 9.0, for which it was; elsewhere one fewer, at least one, since
/// those compilations may need more registers.
constexpr int blocks_at_once(int chosen) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ != 900
  return chosen > 1 ? chosen - 1 : 1;
#else
  return chosen;
#endif
}

/// Dynamic shared memory that a kernel may have without asking, beside up to 16 KiB of its own.
constexpr int kUnaskedSharedBytes = 32 << 10;

/// Queues kernel(arguments...) on the stream.
template <class... Parameters, class... Arguments>
Status launch(void (*kernel)(Parameters...), const LaunchShape& shape, Stream stream,
              const Arguments&... arguments) {
  if (shape.grid_x > kMaxGridX || shape.grid_y > kMaxGridY) return Status::kGridTooLarge;
  const dim3 grid(static_cast<unsigned>(shape.grid_x), static_cast<unsigned>(shape.grid_y));
  const dim3 block(shape.block_x, shape.block_y);
  if (shape.shared_bytes > kUnaskedSharedBytes) {
    const cudaError_t error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shape.shared_bytes);
    if (error != cudaSuccess) {
      cudaGetLastError();  // reported here, not by the next launch too
      return static_cast<Status>(error);
    }
  }
  kernel<<<grid, block, shape.shared_bytes, stream>>>(arguments...);
  return static_cast<Status>(cudaGetLastError());
}

/// Bytes of shared memory that a block can have on the current device; 0 where none can be asked.
inline int device_shared_limit() {
  int device = 0, bytes = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return 0;
  const cudaError_t error =
      cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  return error == cudaSuccess ? bytes : 0;
}

inline const char* runtime_message(Status status) {
  return cudaGetErrorString(static_cast<cudaError_t>(status));
}

}  // namespace hyperstreams::cuda
