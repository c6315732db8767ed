// Where a map's arrays are.
//
// By default each is the map's own: registers where all of its indices are compile-time constants,
// the stack elsewhere. Given InterleavedScratch, arrays are parts of it, which a GPU kernel places
// in shared memory. A map takes its arrays from Arrays<V, Scratch>, a value: what is taken from a
// copy of it may be memory that the original hands out too.
#pragma once

#include <cstdint>
#include <type_traits>

#include "hyperstreams/maps/scalar.h"
#include "hyperstreams/maps/settings.h"

namespace hyperstreams::maps {

template <class V, int kSize>
struct OwnArray {
  V element[kSize];
  HYPERSTREAMS_HOST_DEVICE OwnArray() {}
  HYPERSTREAMS_HOST_DEVICE V& operator[](int k) { return element[k]; }
  HYPERSTREAMS_HOST_DEVICE const V& operator[](int k) const { return element[k]; }
  /// What functions that do not know the size are given.
  HYPERSTREAMS_HOST_DEVICE V* view() { return element; }
};

/// An array of one token of several: element k of all of them lies together.
template <class V, int kStride>
struct Interleaved {
  V* data;
  HYPERSTREAMS_HOST_DEVICE V& operator[](int k) const { return data[int64_t{k} * kStride]; }
  HYPERSTREAMS_HOST_DEVICE Interleaved view() const { return *this; }
};

/// Scratch `kept` of type Kept, with memory for arrays beside it.
template <class V, int kStride, class Kept>
struct InterleavedScratch {
  V* arrays;
  Kept kept;
  HYPERSTREAMS_HOST_DEVICE V& operator[](int k) const { return kept[k]; }
};

template <class V, class Scratch>
struct Arrays {
  /// Whether copies hand out the same memory.
  static constexpr bool kSameMemory = false;
  template <int kSize>
  using Array = OwnArray<V, kSize>;

  explicit HYPERSTREAMS_HOST_DEVICE Arrays(const Scratch&) {}

  /// A new array of `count` <= kSize elements.
  template <int kSize>
  HYPERSTREAMS_HOST_DEVICE Array<kSize> take(int) {
    return Array<kSize>();
  }

  /// The elements of `from` in an array that no pointer reaches, so that registers can hold it.
  template <int kSize, class From>
  HYPERSTREAMS_HOST_DEVICE Array<kSize> hold(From from, int count) {
    Array<kSize> array;
    for (int k = 0; k < count; ++k) array[k] = from[k];
    return array;
  }
};

template <class V, int kStride, class Kept>
struct Arrays<V, InterleavedScratch<V, kStride, Kept>> {
  static_assert(std::is_arithmetic_v<V>, "one token");
  static constexpr bool kSameMemory = true;
  template <int kSize>
  using Array = Interleaved<V, kStride>;

  V* next;

  explicit HYPERSTREAMS_HOST_DEVICE Arrays(const InterleavedScratch<V, kStride, Kept>& scratch)
      : next(scratch.arrays) {}

  template <int kSize>
  HYPERSTREAMS_HOST_DEVICE Array<kSize> take(int count) {
    V* const data = next;
    next += count * kStride;
    return {data};
  }

  /// `from` itself.
  template <int kSize>
  HYPERSTREAMS_HOST_DEVICE Array<kSize> hold(Interleaved<V, kStride> from, int) {
    return from;
  }
};

}  // namespace hyperstreams::maps
