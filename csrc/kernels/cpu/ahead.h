// Memory that the next tile of tokens will need, asked for from inside loops that are bound by
// arithmetic: what would be waited for later arrives meanwhile. Changes no result.
#pragma once

#include "simd.h"

namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE {

constexpr int64_t kCacheLine = 64;

class Ahead {
 public:
  /// Two cache lines for each call, in order. An address, since it may lie in no object.
  struct Lines {
    uintptr_t at;
    uintptr_t step;

    HYPERSTREAMS_INLINE void operator()() {
      constexpr int second_level = 2;
      __builtin_prefetch(reinterpret_cast<const void*>(at), 0, second_level);
      __builtin_prefetch(reinterpret_cast<const void*>(at + kCacheLine), 0, second_level);
      at += step;
    }
  };

  /// At most kRegions of them.
  void add(const void* data, int64_t bytes) {
    const uintptr_t begin = reinterpret_cast<uintptr_t>(data);
    regions_[count_++] = {begin, begin + static_cast<uintptr_t>(bytes)};
  }

  /// The lines for a loop of `steps` steps; the last ones may lie beyond their region.
  Lines take(int64_t steps) {
    while (next_ < count_ && regions_[next_].begin >= regions_[next_].end) ++next_;
    if (next_ == count_) return {reinterpret_cast<uintptr_t>(this), 0};
    const uintptr_t begin = regions_[next_].begin;
    regions_[next_].begin += 2 * kCacheLine * static_cast<uintptr_t>(steps);
    return {begin, 2 * kCacheLine};
  }

 private:
  static constexpr int kRegions = 4;
  struct Region {
    uintptr_t begin, end;
  };
  Region regions_[kRegions];
  int count_ = 0, next_ = 0;
};

}  // namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE
