// Several elements at a time, 16 bytes unless said otherwise, between memory and registers.
#pragma once

#include <cstring>
#include <type_traits>

#include "numeric.h"

namespace hyperstreams::cuda {

template <class S, int kCount = 16 / sizeof(S)>
struct alignas(kCount * sizeof(S) < 16 ? kCount * sizeof(S) : 16) Vector {
  static constexpr int kSize = kCount;
  S element[kCount];
};

/// What a whole vector travels as: words of 8 or 16 bytes.
template <class S, int kCount>
struct VectorWords {
  static constexpr int kBytes = kCount * sizeof(S);
  using Word = std::conditional_t<kBytes == 8, uint2, uint4>;
  static constexpr int kWords = kBytes / sizeof(Word);
  static_assert(kBytes == 8 || kBytes % 16 == 0, "whole words");
};

/// The vector at `from`. kWhole: in whole words; `from` is a multiple of their size and the row
/// holds the whole vector. Otherwise element by element: the row holds `count` more elements, the
/// rest are 0.
template <bool kWhole, int kCount, class S>
__device__ __forceinline__ Vector<S, kCount> load_vector(const S* from, int64_t count) {
  Vector<S, kCount> vector;
  if constexpr (kWhole) {
    using Words = VectorWords<S, kCount>;
    typename Words::Word words[Words::kWords];
#pragma unroll
    for (int k = 0; k < Words::kWords; ++k) {
      words[k] = aligned<const typename Words::Word>(from)[k];
    }
    memcpy(&vector, words, sizeof(words));
  } else {
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      vector.element[k] = k < count ? from[k] : S{};
    }
  }
  return vector;
}

template <bool kWhole, class S>
__device__ __forceinline__ Vector<S> load_vector(const S* from, int64_t count) {
  return load_vector<kWhole, Vector<S>::kSize>(from, count);
}

/// Writes the vector, or its first `count` elements, as load_vector reads it; to global memory.
template <bool kWhole, class S, int kCount>
__device__ __forceinline__ void store_vector(S* to, int64_t count,
                                             const Vector<S, kCount>& vector) {
  if constexpr (kWhole) {
    using Words = VectorWords<S, kCount>;
    typename Words::Word words[Words::kWords];
    memcpy(words, &vector, sizeof(words));
#pragma unroll
    for (int k = 0; k < Words::kWords; ++k) {
      store_words(aligned<typename Words::Word>(to) + k, words[k]);
    }
  } else {
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      if (k < count) to[k] = vector.element[k];
    }
  }
}

/// load_vector and store_vector with the conversion to and from float.
template <bool kWhole, int kCount, class S>
__device__ __forceinline__ void load_floats(const S* from, int64_t count, float (&to)[kCount]) {
  const Vector<S, kCount> vector = load_vector<kWhole, kCount>(from, count);
#pragma unroll
  for (int k = 0; k < kCount; ++k) to[k] = to_float(vector.element[k]);
}

template <bool kWhole, int kCount, class S>
__device__ __forceinline__ void store_floats(S* to, int64_t count, const float (&from)[kCount]) {
  Vector<S, kCount> vector;
#pragma unroll
  for (int k = 0; k < kCount; ++k) vector.element[k] = from_float<S>(from[k]);
  store_vector<kWhole>(to, count, vector);
}

}  // namespace hyperstreams::cuda
