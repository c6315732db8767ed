// The device layer on the host: the functions of device/block_cuda.h over fibers. Sums are written
// out in the order that CUB's warp shuffles and block of warps use.
#pragma once

#include <cmath>

#include <cstdint>
#include <cstring>

#include "grid.h"
#include "hyperstreams/cuda.h"
#include "hyperstreams/plan.h"
#include "rounding.h"

#define __global__
#define __grid_constant__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define threadIdx ::hyperstreams::cuda::emulation::thread_index
#define blockIdx ::hyperstreams::cuda::emulation::block_index
#define blockDim ::hyperstreams::cuda::emulation::block_size
#define gridDim ::hyperstreams::cuda::emulation::grid_size

namespace hyperstreams::cuda {

constexpr int kWarpThreads = 32;

struct alignas(8) uint2 {
  uint32_t x, y;
};

struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};

struct alignas(16) float4 {
  float x, y, z, w;
};

inline float float_from_bits(uint32_t bits) { return emulation::float_of(bits); }
inline uint32_t bits_from_float(float value) { return emulation::bits_of(value); }

/// `pointer` as one to words; hardware faults where this fails the launch.
template <class Word, class S>
Word* aligned(S* pointer) {
  if (reinterpret_cast<uintptr_t>(pointer) % sizeof(Word) != 0) {
    emulation::fail(sizeof(Word) == 16 ? "misaligned 16-byte access" : "misaligned 8-byte access");
  }
  return reinterpret_cast<Word*>(pointer);
}

template <class Word>
void store_words(Word* to, const Word& words) {
  *to = words;
}

template <class T>
T opaque(T value) {
  return value;
}

inline uint32_t own_register(uint32_t value) { return value; }

inline int lane() { return static_cast<int>(threadIdx.x % kWarpThreads); }

inline void block_barrier(int line = __builtin_LINE()) { emulation::meet_block(line); }

inline void warp_barrier(int line = __builtin_LINE()) {
  char received;
  emulation::meet_warp("", &received, 1, lane(), line);
}

template <class T>
T warp_shuffle_xor(T value, int mask, int line = __builtin_LINE()) {
  T received;
  emulation::meet_warp(&value, &received, sizeof(T), lane() ^ mask, line);
  return received;
}

template <class T>
T warp_shuffle(T value, int source, int line = __builtin_LINE()) {
  T received;
  emulation::meet_warp(&value, &received, sizeof(T), source, line);
  return received;
}

inline bool warp_any(bool value, int line = __builtin_LINE()) {
  const void* gathered[kWarpThreads];
  emulation::gather_warp(&value, sizeof(value), gathered, line);
  bool any = false;
  for (const void* each : gathered) any |= *static_cast<const bool*>(each);
  return any;
}

template <class T, int kThreads>
struct BlockSumStorage {
  T warp[kThreads / kWarpThreads];
};

template <int kThreads, class T>
T block_sum(T value, BlockSumStorage<T, kThreads>& storage, int line = __builtin_LINE()) {
  static_assert(kThreads % kWarpThreads == 0, "whole warps");
  for (int delta = 1; delta < kWarpThreads; delta *= 2) {
    const int source = lane() + delta;
    const T other = warp_shuffle(value, source % kWarpThreads, line);
    if (source < kWarpThreads) value += other;
  }
  if (lane() == 0) storage.warp[threadIdx.x / kWarpThreads] = value;
  block_barrier(line);
  if (threadIdx.x == 0) {
    for (int warp = 1; warp < kThreads / kWarpThreads; ++warp) value += storage.warp[warp];
  }
  return value;
}

template <class Storage>
Storage& shared() {
  static const char key = 0;
  return *static_cast<Storage*>(emulation::shared_memory(&key, sizeof(Storage)));
}

template <class T>
T* dynamic_shared() {
  const size_t& bytes = emulation::dynamic_shared_bytes;
  return static_cast<T*>(emulation::shared_memory(&bytes, bytes));
}

inline void copy_async(uint4* to, const uint4* from) {
  emulation::copy_later(aligned<uint4>(to), aligned<const uint4>(from), sizeof(uint4));
}

inline void copy_async(uint4* to, const uint4* from, bool exists) {
  static const uint4 zeros = {};
  copy_async(to, exists ? from : &zeros);
}

inline void end_copy_group() { emulation::end_copy_group(); }

template <int kLeft>
void finish_copies() {
  emulation::finish_copies(kLeft);
}

/// As hardware does, as far as is known: the products are exact, and the sum is cut to float
/// towards zero. (Hardware cuts the addends too, a few bits further down.)
inline void multiply_add(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                         int line = __builtin_LINE()) {
  struct Fragments {
    float a[4][2], b[2][2];
  } own;
  const auto unpack = [](uint32_t pair, float (&to)[2]) {
    to[0] = emulation::float_of(pair << 16);
    to[1] = emulation::float_of(pair & 0xffff0000);
  };
  for (int word = 0; word < 4; ++word) unpack(a[word], own.a[word]);
  for (int word = 0; word < 2; ++word) unpack(b[word], own.b[word]);
  const void* gathered[kWarpThreads];
  emulation::gather_warp(&own, sizeof(own), gathered, line);
  const auto fragments = [&](int source) {
    return static_cast<const Fragments*>(gathered[source]);
  };
  const int group = lane() / 4, quad = lane() % 4;
  double exact[4] = {sum[0], sum[1], sum[2], sum[3]};
  for (int source = 0; source < 4; ++source) {  // of columns of a and rows of b
    const Fragments& row = *fragments(group * 4 + source);
    for (int column = 0; column < 2; ++column) {
      const Fragments& other = *fragments((2 * quad + column) * 4 + source);
      for (int k = 0; k < 4; ++k) {
        const double factor = other.b[k / 2][k % 2];
        exact[column] += row.a[k / 2 * 2][k % 2] * factor;
        exact[2 + column] += row.a[k / 2 * 2 + 1][k % 2] * factor;
      }
    }
  }
  for (int k = 0; k < 4; ++k) sum[k] = emulation::cut_to_float(exact[k]);
}

inline void load_transposed(uint32_t (&words)[4], const uint4* row, int line = __builtin_LINE()) {
  row = aligned<const uint4>(row);
  const void* gathered[kWarpThreads];
  emulation::gather_warp(&row, sizeof(row), gathered, line);
  const int group = lane() / 4, quad = lane() % 4;
  for (int matrix = 0; matrix < 4; ++matrix) {
    uint16_t pair[2];
    for (int i = 0; i < 2; ++i) {
      const uint4* from = *static_cast<const uint4* const*>(gathered[8 * matrix + 2 * quad + i]);
      std::memcpy(&pair[i], reinterpret_cast<const char*>(from) + 2 * group, sizeof(pair[i]));
    }
    words[matrix] = uint32_t{pair[0]} | uint32_t{pair[1]} << 16;
  }
}

inline void multiply_add_half(float (&sum)[4], uint32_t a, uint32_t a8, uint32_t b,
                              int line = __builtin_LINE()) {
  multiply_add(sum, {a, a8, 0, 0}, {b, 0}, line);
}

template <class... Parameters, class... Arguments>
Status launch(void (*kernel)(Parameters...), const LaunchShape& shape, Stream,
              const Arguments&... arguments) {
  if (shape.grid_x > kMaxGridX || shape.grid_y > kMaxGridY) return Status::kGridTooLarge;
  const emulation::Index grid{static_cast<unsigned>(shape.grid_x),
                              static_cast<unsigned>(shape.grid_y), 1};
  const emulation::Index block{static_cast<unsigned>(shape.block_x),
                               static_cast<unsigned>(shape.block_y), 1};
  emulation::dynamic_shared_bytes = static_cast<size_t>(shape.shared_bytes);
  emulation::run_grid(grid, block, [&] { kernel(arguments...); });
  return Status::kOk;
}

constexpr int blocks_at_once(int chosen) { return chosen; }

inline int device_shared_limit() { return emulation::shared_limit; }

inline const char* runtime_message(Status) { return "an error of the CUDA runtime"; }

}  // namespace hyperstreams::cuda
