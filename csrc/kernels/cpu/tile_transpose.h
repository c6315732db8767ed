// Rows of tokens to lanes and back: element (k, token) of a tile is lane `token` of lanes k.
#pragma once

#include "simd.h"

namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE {

/// Four rows of four floats; element (r, c) is at r * stride + c.
HYPERSTREAMS_INLINE void transpose_4x4(const float* from, int64_t from_stride, float* to,
                                       int64_t to_stride) {
  using four = float __attribute__((vector_size(16)));
  four row[4];
  for (int r = 0; r < 4; ++r) std::memcpy(&row[r], from + r * from_stride, sizeof(four));
  const four low01 = __builtin_shufflevector(row[0], row[1], 0, 4, 1, 5);
  const four high01 = __builtin_shufflevector(row[0], row[1], 2, 6, 3, 7);
  const four low23 = __builtin_shufflevector(row[2], row[3], 0, 4, 1, 5);
  const four high23 = __builtin_shufflevector(row[2], row[3], 2, 6, 3, 7);
  row[0] = __builtin_shufflevector(low01, low23, 0, 1, 4, 5);
  row[1] = __builtin_shufflevector(low01, low23, 2, 3, 6, 7);
  row[2] = __builtin_shufflevector(high01, high23, 0, 1, 4, 5);
  row[3] = __builtin_shufflevector(high01, high23, 2, 3, 6, 7);
  for (int r = 0; r < 4; ++r) std::memcpy(to + r * to_stride, &row[r], sizeof(four));
}

/// to[c, r] = from[r, c] for `rows` x `columns` elements.
template <class T>
HYPERSTREAMS_INLINE void transpose(const T* from, int64_t from_stride, int64_t rows,
                                   int64_t columns, T* to, int64_t to_stride) {
  int64_t r = 0;
  if constexpr (sizeof(T) == 4) {
    for (; r + 4 <= rows; r += 4) {
      int64_t c = 0;
      for (; c + 4 <= columns; c += 4) {
        transpose_4x4(from + r * from_stride + c, from_stride, to + c * to_stride + r, to_stride);
      }
      for (; c < columns; ++c) {
        for (int64_t k = 0; k < 4; ++k) to[c * to_stride + r + k] = from[(r + k) * from_stride + c];
      }
    }
  }
  for (; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) to[c * to_stride + r] = from[r * from_stride + c];
  }
}

/// Rows [size] of `count` tokens to lanes; the other lanes are 0.
template <class T>
inline void load_tile(const T* rows, int64_t stride, int64_t count, int size, Lanes<T>* tile) {
  T* out = reinterpret_cast<T*>(tile);
  constexpr int lanes = Lanes<T>::size;
  if (count < lanes) std::memset(out, 0, sizeof(T) * static_cast<size_t>(lanes * size));
  transpose(rows, stride, count, size, out, lanes);
}

/// The first `count` lanes to contiguous rows [size].
template <class T>
inline void store_tile(const Lanes<T>* tile, int64_t count, int size, T* rows) {
  constexpr int lanes = Lanes<T>::size;
  transpose(reinterpret_cast<const T*>(tile), lanes, size, count, rows, size);
}

}  // namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE
