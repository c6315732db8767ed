// Integer arithmetic of launch plans.
#pragma once

#include <cstdint>

namespace hyperstreams::cuda {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0); }

/// Smallest power of two that is at least `value`, up to `limit`, itself a power of two.
constexpr int power_of_two_above(int64_t value, int limit) {
  int power = 1;
  while (power < limit && power < value) power *= 2;
  return power;
}

}  // namespace hyperstreams::cuda
