// Numbers as sums of bfloat16 pieces, for products on tensor cores: x = piece 0 + piece 1 + ...,
// each the rest rounded to nearest.
//
// A bfloat16 is one piece, a float16 exactly two, a float three: 24 bits, exactly as long as the
// last piece is not below bfloat16's range (|x| > 2^-109). The product of numbers of up to 3
// pieces is the sum of the products of pieces a and b with a + b < 3; what is left out is below
// 2^-24 of it. Infinite numbers, and floats that round to infinite bfloat16, give NaN.
#pragma once

#include <cstring>
#include <type_traits>

#include "numeric.h"
#include "vector.h"

namespace hyperstreams::cuda {

/// Pieces of a float, and of an S.
constexpr int kFloatPieces = 3;
template <class S>
constexpr int kPieces = std::is_same_v<S, BFloat16>  ? 1
                        : std::is_same_v<S, Float16> ? 2
                                                     : 3;

/// Two numbers rounded to bfloat16, the first in the lower half.
__device__ __forceinline__ uint32_t bfloat_pair(float first, float second) {
#ifdef __CUDACC__
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  uint32_t bits;
  memcpy(&bits, &pair, sizeof(bits));
  return bits;
#else
  return uint32_t{from_float<BFloat16>(first).bits} | uint32_t{from_float<BFloat16>(second).bits}
                                                          << 16;
#endif
}

/// Number kHalf, 0 or 1, of such a pair.
template <int kHalf>
__device__ __forceinline__ float bfloat_of(uint32_t pair) {
  return float_from_bits(kHalf == 0 ? pair << 16 : pair & 0xffff0000u);
}

/// kCount elements in whole words, as they are in memory: to be kept in registers, where an array
/// of 2-byte elements would take one register each.
template <class S, int kCount>
struct Packed {
  static constexpr int kWords = kCount * sizeof(S) / 4;
  uint32_t word[kWords];

  /// Element k, a constant once loops are unrolled.
  __device__ __forceinline__ float operator[](int k) const {
    if constexpr (sizeof(S) == 4) {
      return float_from_bits(word[k]);
    } else if constexpr (std::is_same_v<S, BFloat16>) {
      return k % 2 == 0 ? bfloat_of<0>(word[k / 2]) : bfloat_of<1>(word[k / 2]);
    } else {
      return to_float(S{static_cast<uint16_t>(word[k / 2] >> k % 2 * 16)});
    }
  }

  /// Elements 2p and 2p + 1, rounded to S.
  __device__ __forceinline__ void set_pair(int p, float first, float second) {
    if constexpr (sizeof(S) == 4) {
      word[2 * p] = bits_from_float(first);
      word[2 * p + 1] = bits_from_float(second);
    } else if constexpr (std::is_same_v<S, BFloat16>) {
      word[p] = bfloat_pair(first, second);
    } else {
      word[p] = uint32_t{from_float<S>(first).bits} | uint32_t{from_float<S>(second).bits} << 16;
    }
  }
};

template <class S, int kCount>
__device__ __forceinline__ Packed<S, kCount> packed(const Vector<S, kCount>& vector) {
  Packed<S, kCount> words;
  memcpy(words.word, &vector, sizeof(words.word));
  // Not unpacked before they are used.
#pragma unroll
  for (int w = 0; w < Packed<S, kCount>::kWords; ++w) words.word[w] = opaque(words.word[w]);
  return words;
}

/// The values rounded to S.
template <class S, int kCount>
__device__ __forceinline__ Packed<S, kCount> packed(const float (&value)[kCount]) {
  Packed<S, kCount> words;
#pragma unroll
  for (int p = 0; p < kCount / 2; ++p) words.set_pair(p, value[2 * p], value[2 * p + 1]);
  return words;
}

/// store_vector of its elements.
template <bool kWhole, class S, int kCount>
__device__ __forceinline__ void store_packed(S* to, int64_t count, const Packed<S, kCount>& words) {
  Vector<S, kCount> vector;
  memcpy(&vector, words.word, sizeof(words.word));
  store_vector<kWhole>(to, count, vector);
}

/// pair[p] = piece p of both numbers.
template <int kCount>
__device__ __forceinline__ void split(float first, float second, uint32_t (&pair)[kCount]) {
#pragma unroll
  for (int p = 0; p < kCount; ++p) {
    pair[p] = bfloat_pair(first, second);
    first -= bfloat_of<0>(pair[p]);
    second -= bfloat_of<1>(pair[p]);
  }
}

/// pair[p][w] = piece p of elements 2w and 2w + 1 of x.
template <class S, int kCount>
__device__ __forceinline__ void split(const Packed<S, kCount>& x,
                                      uint32_t (&pair)[kPieces<S>][kCount / 2]) {
#pragma unroll
  for (int w = 0; w < kCount / 2; ++w) {
    if constexpr (std::is_same_v<S, BFloat16>) {
      pair[0][w] = x.word[w];
    } else {
      uint32_t pieces[kPieces<S>];
      split(x[2 * w], x[2 * w + 1], pieces);
#pragma unroll
      for (int p = 0; p < kPieces<S>; ++p) pair[p][w] = pieces[p];
    }
  }
}

/// Halves kHalf, 0 or 1, of two words as one pair.
template <int kHalf>
__device__ __forceinline__ uint32_t pair_of_halves(uint32_t first, uint32_t second) {
#ifdef __CUDACC__
  return __byte_perm(first, second, kHalf == 0 ? 0x5410 : 0x7632);
#else
  return kHalf == 0 ? (first & 0xffff) | second << 16 : first >> 16 | (second & 0xffff0000);
#endif
}

/// load_vector straight into words; zeros where `count` is not positive.
template <bool kWhole, int kCount, class S>
__device__ __forceinline__ Packed<S, kCount> load_packed(const S* from, int64_t count) {
  if constexpr (kWhole) {
    static_assert(Packed<S, kCount>::kWords % 4 == 0, "16-byte accesses");
    Packed<S, kCount> words{};
    if (count > 0) {
#pragma unroll
      for (int w = 0; w < Packed<S, kCount>::kWords; w += 4) {
        const uint4 loaded = aligned<const uint4>(from)[w / 4];
        words.word[w] = opaque(loaded.x);
        words.word[w + 1] = opaque(loaded.y);
        words.word[w + 2] = opaque(loaded.z);
        words.word[w + 3] = opaque(loaded.w);
      }
    }
    return words;
  } else {
    return packed(load_vector<false, kCount>(from, count));
  }
}

}  // namespace hyperstreams::cuda
