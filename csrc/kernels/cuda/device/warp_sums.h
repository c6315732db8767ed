// Sums of several values over the warp at once.
#pragma once

namespace hyperstreams::cuda {

/// Lane l gets the sum over the warp of value[l * kCount / 32]; kCount is a power of two up to 32.
/// Every lane takes part; `value` is overwritten.
///
/// Lanes exchange halves of what they hold, so that a step halves the number of values: 31 shuffles
/// for 32 values instead of 160. Order, whatever kCount: lane l with lane l ^ d, d = 16, 8, 4,
/// 2, 1.
template <int kCount, class T>
__device__ __forceinline__ T warp_sums(T (&value)[kCount]) {
  static_assert(kCount >= 1 && kCount <= kWarpThreads && (kCount & (kCount - 1)) == 0,
                "a power of two");
  int mask = kWarpThreads / 2;
#pragma unroll
  for (int half = kCount / 2; half >= 1; half /= 2, mask /= 2) {
    const bool upper = (lane() & mask) != 0;
#pragma unroll
    for (int k = 0; k < half; ++k) {
      const T kept = upper ? value[k + half] : value[k];
      const T sent = upper ? value[k] : value[k + half];
      value[k] = kept + warp_shuffle_xor(sent, mask);
    }
  }
  T sum = value[0];
#pragma unroll
  for (; mask >= 1; mask /= 2) sum += warp_shuffle_xor(sum, mask);
  return sum;
}

}  // namespace hyperstreams::cuda
