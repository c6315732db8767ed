// Sums of several values over the warp at once.
#pragma once

namespace hyperstreams::cuda {

/// Lane l gets the sum over the warp of value[l * kCount / 32]; kCount is a power of two up to 32.
/// Every lane takes part. kMask: the first exchange, for the function's own use.
///
/// Lanes exchange halves of what they hold, so that a step halves the number of values: 31 shuffles
/// for 32 values instead of 160. Order, whatever kCount: lane l with lane l ^ d, d = 16, 8, 4,
/// 2, 1.
template <int kMask = kWarpThreads / 2, int kCount, class T>
__device__ __forceinline__ T warp_sums(const T (&value)[kCount]) {
  static_assert((kCount & (kCount - 1)) == 0 && kCount <= (kMask > 0 ? 2 * kMask : 1),
                "a power of two up to 32");
  if constexpr (kMask == 0) {
    return value[0];
  } else if constexpr (kCount == 1) {
    const T sum[1] = {value[0] + warp_shuffle_xor(value[0], kMask)};
    return warp_sums<kMask / 2>(sum);
  } else {
    const bool upper = (lane() & kMask) != 0;
    T half[kCount / 2];
#pragma unroll
    for (int k = 0; k < kCount / 2; ++k) {
      const T kept = upper ? value[k + kCount / 2] : value[k];
      const T sent = upper ? value[k] : value[k + kCount / 2];
      half[k] = kept + warp_shuffle_xor(sent, kMask);
    }
    return warp_sums<kMask / 2>(half);
  }
}

}  // namespace hyperstreams::cuda
