// Fixed-width lanes of numbers: 16 floats or 8 doubles at every ISA level.
//
// A sum over channels is kept in lanes (channel c in lane c % size) and combined by one fixed tree,
// with explicit fused multiply-adds, so that AVX2 and AVX-512 give the same bits. The base level
// is plain C++ and rounds multiply and add separately.
//
// Each level defines, for T in {float, double}, struct Lanes<T> with
//   size; set(T); load(const T*); store(T*); operators + - * /; fma(a, b, c) = a b + c;
//   max, min, sqrt, abs; less(a, b) -> Mask; select(mask, if_true, if_false); sum() by the fixed
//   tree; round() to the nearest integer; pow2() = 2^k of integral lanes within the normal range
// and for float load/store of BFloat16 and Float16 with round-to-nearest-even.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "dispatch.h"

#define HYPERSTREAMS_INLINE inline __attribute__((always_inline))

namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE {

template <class T>
struct Lanes;

/// Type that streams of storage type S are accumulated in.
template <class S>
struct Accumulate {
  using type = float;
};
template <>
struct Accumulate<double> {
  using type = double;
};
template <class S>
using accumulate_t = typename Accumulate<S>::type;

}  // namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE

#if defined(HYPERSTREAMS_ISA_IS_AVX512)
#include "simd_avx512.h"
#elif defined(HYPERSTREAMS_ISA_IS_AVX2)
#include "simd_avx2.h"
#else
#include "simd_base.h"
#endif

namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE {

/// First `count` < size elements; the other lanes are 0.
template <class S>
HYPERSTREAMS_INLINE Lanes<accumulate_t<S>> load_partial(const S* data, int64_t count) {
  S buffer[Lanes<accumulate_t<S>>::size] = {};
  std::memcpy(buffer, data, static_cast<size_t>(count) * sizeof(S));
  return Lanes<accumulate_t<S>>::load(buffer);
}

template <class S>
HYPERSTREAMS_INLINE void store_partial(S* data, const Lanes<accumulate_t<S>>& value,
                                       int64_t count) {
  S buffer[Lanes<accumulate_t<S>>::size];
  value.store(buffer);
  std::memcpy(data, buffer, static_cast<size_t>(count) * sizeof(S));
}

/// Calls full(c) for whole lane groups of [0, width) and tail(c, count) for the rest.
template <class T, class Full, class Tail>
HYPERSTREAMS_INLINE void for_channels(int64_t width, const Full& full, const Tail& tail) {
  constexpr int64_t step = Lanes<T>::size;
  int64_t c = 0;
  for (; c + step <= width; c += step) full(c);
  if (c < width) tail(c, width - c);
}

}  // namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE
