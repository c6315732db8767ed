// Tile sizes and row helpers shared by project's forward and backward.
#pragma once

#include <type_traits>

#include "simd.h"

namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE {

// Accumulators per tile: tokens x lane groups of 16. AVX-512 holds 12 x 2 in its 32 registers; AVX2
// splits each group over two of its 16 registers and holds 6 x 1.
#if defined(HYPERSTREAMS_ISA_IS_AVX512)
constexpr int kTileTokens = 12;
constexpr int kTileGroups = 2;
#elif defined(HYPERSTREAMS_ISA_IS_AVX2)
constexpr int kTileTokens = 6;
constexpr int kTileGroups = 1;
#else
constexpr int kTileTokens = 2;
constexpr int kTileGroups = 1;
#endif

template <int kCount>
struct StaticCount {
  static constexpr int value = kCount;
};

/// Covers [0, count) with chunks of kFull, kFull / 3 and 1: f(StaticCount<size>{}, begin).
template <int kFull, class F>
HYPERSTREAMS_INLINE void for_chunks(int64_t count, const F& f) {
  constexpr int kThird = kFull >= 3 ? kFull / 3 : 1;
  int64_t k = 0;
  for (; k + kFull <= count; k += kFull) f(StaticCount<kFull>{}, k);
  for (; k + kThird <= count; k += kThird) f(StaticCount<kThird>{}, k);
  for (; k < count; ++k) f(StaticCount<1>{}, k);
}

/// acc[r][g] += scalar(r) row[g], lane groups g of a row: one step of a matrix product whose sums
/// stay in registers.
template <int kRows, int kGroups, class T, class Scalar>
HYPERSTREAMS_INLINE void add_outer_product(Lanes<T> (&acc)[kRows][kGroups], const Scalar& scalar,
                                           const T* row) {
  Lanes<T> group[kGroups];
#pragma GCC unroll 2
  for (int g = 0; g < kGroups; ++g) group[g] = Lanes<T>::load(row + g * Lanes<T>::size);
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    const Lanes<T> factor = Lanes<T>::set(scalar(r));
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g) acc[r][g] = fma(factor, group[g], acc[r][g]);
  }
}

/// The row itself when it is stored in the accumulation type, else its conversion in `buffer`.
template <class S>
HYPERSTREAMS_INLINE const accumulate_t<S>* as_accumulated(const S* row, int64_t channels,
                                                          accumulate_t<S>* buffer) {
  using T = accumulate_t<S>;
  if constexpr (std::is_same_v<S, T>) {
    return row;
  } else {
    for_channels<T>(
        channels, [&](int64_t c) { Lanes<T>::load(row + c).store(buffer + c); },
        [&](int64_t c, int64_t count) {
          store_partial(buffer + c, load_partial(row + c, count), count);
        });
    return buffer;
  }
}

/// sum + row^2, channel c in lane c % size.
template <class T>
HYPERSTREAMS_INLINE Lanes<T> add_squares(const T* row, int64_t channels, Lanes<T> sum) {
  for_channels<T>(
      channels,
      [&](int64_t c) {
        const Lanes<T> x = Lanes<T>::load(row + c);
        sum = fma(x, x, sum);
      },
      [&](int64_t c, int64_t count) {
        const Lanes<T> x = load_partial(row + c, count);
        sum = fma(x, x, sum);
      });
  return sum;
}

}  // namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE
