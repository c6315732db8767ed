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

/// Whole registers are written here and read by the maps; pieces of them would have to reach the
/// cache before they can be read as one.
#if defined(HYPERSTREAMS_ISA_IS_AVX512)
#define HYPERSTREAMS_WIDE_TRANSPOSE
struct WideTranspose {
  /// Each block of four columns becomes its 4 x 4 transpose.
  static HYPERSTREAMS_INLINE void blocks(__m512* row) {
    const __m512 low01 = _mm512_unpacklo_ps(row[0], row[1]);
    const __m512 high01 = _mm512_unpackhi_ps(row[0], row[1]);
    const __m512 low23 = _mm512_unpacklo_ps(row[2], row[3]);
    const __m512 high23 = _mm512_unpackhi_ps(row[2], row[3]);
    row[0] = _mm512_shuffle_ps(low01, low23, 0x44);
    row[1] = _mm512_shuffle_ps(low01, low23, 0xee);
    row[2] = _mm512_shuffle_ps(high01, high23, 0x44);
    row[3] = _mm512_shuffle_ps(high01, high23, 0xee);
  }

  /// Four numbers of each of 16 rows, at row(0) to row(15), to lanes; lanes are `stride` apart.
  template <class Row>
  static HYPERSTREAMS_INLINE void load(const Row& row, float* tile, int64_t stride) {
    __m512 four[4];
    for (int r = 0; r < 4; ++r) {
      four[r] = _mm512_castps128_ps512(_mm_loadu_ps(row(r)));
      four[r] = _mm512_insertf32x4(four[r], _mm_loadu_ps(row(r + 4)), 1);
      four[r] = _mm512_insertf32x4(four[r], _mm_loadu_ps(row(r + 8)), 2);
      four[r] = _mm512_insertf32x4(four[r], _mm_loadu_ps(row(r + 12)), 3);
    }
    blocks(four);
    for (int r = 0; r < 4; ++r) _mm512_storeu_ps(tile + r * stride, four[r]);
  }

  /// The same of rows without a gap: whole registers of four tokens.
  static HYPERSTREAMS_INLINE void load_packed(const float* rows, float* tile) {
    const __m512i first =
        _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29);
    const __m512i last = _mm512_add_epi32(first, _mm512_set1_epi32(2));
    __m512 pair[2][2];  // of eight tokens: numbers 0 and 1, numbers 2 and 3
    for (int half = 0; half < 2; ++half) {
      const __m512 low = _mm512_loadu_ps(rows + 32 * half);
      const __m512 high = _mm512_loadu_ps(rows + 32 * half + 16);
      pair[half][0] = _mm512_permutex2var_ps(low, first, high);
      pair[half][1] = _mm512_permutex2var_ps(low, last, high);
    }
    for (int k = 0; k < 2; ++k) {
      _mm512_storeu_ps(tile + 32 * k, _mm512_shuffle_f32x4(pair[0][k], pair[1][k], 0x44));
      _mm512_storeu_ps(tile + 32 * k + 16, _mm512_shuffle_f32x4(pair[0][k], pair[1][k], 0xee));
    }
  }

  static HYPERSTREAMS_INLINE void store_packed(const float* tile, float* rows) {
    __m512 row[4];
    for (int r = 0; r < 4; ++r) row[r] = _mm512_loadu_ps(tile + 16 * r);
    blocks(row);
    // Register r has tokens r, 4 + r, 8 + r and 12 + r, four numbers each: transposed again, by
    // four numbers at a time.
    const __m512 low01 = _mm512_shuffle_f32x4(row[0], row[1], 0x44);
    const __m512 high01 = _mm512_shuffle_f32x4(row[0], row[1], 0xee);
    const __m512 low23 = _mm512_shuffle_f32x4(row[2], row[3], 0x44);
    const __m512 high23 = _mm512_shuffle_f32x4(row[2], row[3], 0xee);
    _mm512_storeu_ps(rows, _mm512_shuffle_f32x4(low01, low23, 0x88));
    _mm512_storeu_ps(rows + 16, _mm512_shuffle_f32x4(low01, low23, 0xdd));
    _mm512_storeu_ps(rows + 32, _mm512_shuffle_f32x4(high01, high23, 0x88));
    _mm512_storeu_ps(rows + 48, _mm512_shuffle_f32x4(high01, high23, 0xdd));
  }

  static HYPERSTREAMS_INLINE void store(const float* tile, float* rows, int64_t stride) {
    __m512 row[4];
    for (int r = 0; r < 4; ++r) row[r] = _mm512_loadu_ps(tile + 16 * r);
    blocks(row);
    for (int r = 0; r < 4; ++r) {
      float* to = rows + r * stride;
      _mm_storeu_ps(to, _mm512_castps512_ps128(row[r]));
      _mm_storeu_ps(to + 4 * stride, _mm512_extractf32x4_ps(row[r], 1));
      _mm_storeu_ps(to + 8 * stride, _mm512_extractf32x4_ps(row[r], 2));
      _mm_storeu_ps(to + 12 * stride, _mm512_extractf32x4_ps(row[r], 3));
    }
  }
};
#elif defined(HYPERSTREAMS_ISA_IS_AVX2)
#define HYPERSTREAMS_WIDE_TRANSPOSE
struct WideTranspose {
  /// Each block of four columns becomes its 4 x 4 transpose.
  static HYPERSTREAMS_INLINE void blocks(__m256* row) {
    const __m256 low01 = _mm256_unpacklo_ps(row[0], row[1]);
    const __m256 high01 = _mm256_unpackhi_ps(row[0], row[1]);
    const __m256 low23 = _mm256_unpacklo_ps(row[2], row[3]);
    const __m256 high23 = _mm256_unpackhi_ps(row[2], row[3]);
    row[0] = _mm256_shuffle_ps(low01, low23, 0x44);
    row[1] = _mm256_shuffle_ps(low01, low23, 0xee);
    row[2] = _mm256_shuffle_ps(high01, high23, 0x44);
    row[3] = _mm256_shuffle_ps(high01, high23, 0xee);
  }

  /// Four numbers of each of 16 rows, at row(0) to row(15), to lanes; lanes are `stride` apart.
  template <class Row>
  static HYPERSTREAMS_INLINE void load(const Row& row, float* tile, int64_t stride) {
    for (int half = 0; half < 16; half += 8) {
      __m256 four[4];
      for (int r = 0; r < 4; ++r) {
        four[r] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(row(half + r))),
                                       _mm_loadu_ps(row(half + r + 4)), 1);
      }
      blocks(four);
      for (int r = 0; r < 4; ++r) _mm256_storeu_ps(tile + r * stride + half, four[r]);
    }
  }

  static HYPERSTREAMS_INLINE void store(const float* tile, float* rows, int64_t stride) {
    for (int half = 0; half < 2; ++half) {
      __m256 row[4];
      for (int r = 0; r < 4; ++r) row[r] = _mm256_loadu_ps(tile + 16 * r + 8 * half);
      blocks(row);
      for (int r = 0; r < 4; ++r) {
        float* to = rows + (8 * half + r) * stride;
        _mm_storeu_ps(to, _mm256_castps256_ps128(row[r]));
        _mm_storeu_ps(to + 4 * stride, _mm256_extractf128_ps(row[r], 1));
      }
    }
  }
};
#endif

/// Asks for `count` rows [size]. A tile reads and writes its rows in an order that the processor
/// does not foresee, so each tile asks for the next one's. Beyond the last row it asks in vain.
template <class T>
HYPERSTREAMS_INLINE void prefetch_rows(const T* rows, int64_t stride, int64_t count, int size) {
  constexpr int line = 64 / sizeof(T);
  if (size < line && stride == size) return;  // a few lines in order, which it does foresee
  if (stride == size) {
    for (int64_t k = 0; k < count * size; k += line) __builtin_prefetch(rows + k);
  } else {
    for (int64_t r = 0; r < count; ++r) {
      for (int k = 0; k < size; k += line) __builtin_prefetch(rows + r * stride + k);
    }
  }
}

/// Rows [size] of `count` tokens to lanes; the other lanes are 0.
template <class T>
inline void load_tile(const T* rows, int64_t stride, int64_t count, int size, Lanes<T>* tile) {
  T* out = reinterpret_cast<T*>(tile);
  constexpr int lanes = Lanes<T>::size;
  if (count == lanes && size == 1 && stride == 1) {
    *tile = Lanes<T>::load(rows);
    return;
  }
  if (count == lanes) prefetch_rows(rows + lanes * stride, stride, lanes, size);
  if (count < lanes) std::memset(out, 0, sizeof(T) * static_cast<size_t>(lanes * size));
  int first = 0;
#ifdef HYPERSTREAMS_ISA_IS_AVX512
  if constexpr (sizeof(T) == 4) {
    if (count == lanes && size == 4 && stride == 4) return WideTranspose::load_packed(rows, out);
  }
#endif
#ifdef HYPERSTREAMS_WIDE_TRANSPOSE
  if constexpr (sizeof(T) == 4) {
    for (; count == lanes && first + 4 <= size; first += 4) {
      WideTranspose::load([&](int r) { return rows + r * stride + first; }, out + first * lanes,
                          lanes);
    }
  }
#endif
  if (first == size) return;
  transpose(rows + first, stride, count, size - first, out + first * lanes, lanes);
}

/// The same for tokens [t, t + count) of a view.
template <class T>
void load_rows(const RowsView& rows, int64_t t, int64_t count, int size, Lanes<T>* tile) {
  load_tile(static_cast<const T*>(rows.data) + t * rows.token_stride, rows.token_stride, count,
            size, tile);
}

/// The first `count` lanes to contiguous rows [size].
template <class T>
inline void store_tile(const Lanes<T>* tile, int64_t count, int size, T* rows) {
  const T* from = reinterpret_cast<const T*>(tile);
  constexpr int lanes = Lanes<T>::size;
  if (count == lanes && size == 1) return tile->store(rows);
  if (count == lanes) prefetch_rows(rows + lanes * size, size, lanes, size);
  int first = 0;
#ifdef HYPERSTREAMS_ISA_IS_AVX512
  if constexpr (sizeof(T) == 4) {
    if (count == lanes && size == 4) return WideTranspose::store_packed(from, rows);
  }
#endif
#ifdef HYPERSTREAMS_WIDE_TRANSPOSE
  if constexpr (sizeof(T) == 4) {
    for (; count == lanes && first + 4 <= size; first += 4) {
      WideTranspose::store(from + first * lanes, rows + first, size);
    }
  }
#endif
  if (first == size) return;
  transpose(from + first * lanes, lanes, size - first, count, rows + first, size);
}

}  // namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE
