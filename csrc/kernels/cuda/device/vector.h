// Sixteen bytes of elements at a time, between memory and registers.
#pragma once

#include <cstring>

#include "numeric.h"

namespace hyperstreams::cuda {

template <class S>
struct alignas(16) Vector {
  static constexpr int kSize = 16 / sizeof(S);
  S element[kSize];
};

/// The vector at `from`. kWhole: one access; `from` is a multiple of 16 bytes and the row holds the
/// whole vector. Otherwise element by element: the row holds `count` more elements, the rest are 0.
template <bool kWhole, class S>
__device__ __forceinline__ Vector<S> load_vector(const S* from, int64_t count) {
  Vector<S> vector;
  if constexpr (kWhole) {
    const uint4 bytes = *aligned_16<const uint4>(from);
    memcpy(&vector, &bytes, sizeof(bytes));
  } else {
#pragma unroll
    for (int k = 0; k < Vector<S>::kSize; ++k) {
      vector.element[k] = k < count ? from[k] : S{};
    }
  }
  return vector;
}

/// Writes the vector, or its first `count` elements, as load_vector reads it.
template <bool kWhole, class S>
__device__ __forceinline__ void store_vector(S* to, int64_t count, const Vector<S>& vector) {
  if constexpr (kWhole) {
    uint4 bytes;
    memcpy(&bytes, &vector, sizeof(bytes));
    *aligned_16<uint4>(to) = bytes;
  } else {
#pragma unroll
    for (int k = 0; k < Vector<S>::kSize; ++k) {
      if (k < count) to[k] = vector.element[k];
    }
  }
}

}  // namespace hyperstreams::cuda
