// What launch plans are computed with.
#pragma once

#include <cstdint>

#include "hyperstreams/common.h"

namespace hyperstreams::cuda {

constexpr int element_bytes(DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
      return 8;
    case DType::kFloat32:
      return 4;
    case DType::kBFloat16:
    case DType::kFloat16:
      break;
  }
  return 2;
}

constexpr int64_t ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0); }

/// Smallest power of two that is at least `value`, up to `limit`, itself a power of two.
constexpr int power_of_two_above(int64_t value, int limit) {
  int power = 1;
  while (power < limit && power < value) power *= 2;
  return power;
}

}  // namespace hyperstreams::cuda
