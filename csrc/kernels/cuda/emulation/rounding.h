// bfloat16 and float16 in software, rounding to nearest even.
#pragma once

#include <cmath>

#include <cstdint>
#include <cstring>

namespace hyperstreams::cuda::emulation {

inline float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

/// Rounds towards zero.
inline float cut_to_float(double value) {
  const float nearest = static_cast<float>(value);
  return std::fabs(double{nearest}) > std::fabs(value) ? std::nextafter(nearest, 0.0f) : nearest;
}

inline uint16_t float_to_bfloat(float value) {
  if (std::isnan(value)) return 0x7fff;
  const uint32_t bits = bits_of(value);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const int exponent = half >> 10 & 31;
  const uint32_t fraction = half & 0x3ff;
  if (exponent == 31) return float_of(sign | 0x7f800000 | fraction << 13);
  // Value = fraction * 2^-24 for subnormals, else (1024 + fraction) * 2^(exponent - 25).
  const float magnitude = exponent == 0
                              ? std::ldexp(static_cast<float>(fraction), -24)
                              : std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
  return sign ? -magnitude : magnitude;
}

inline uint16_t float_to_half(float value) {
  const uint16_t sign = static_cast<uint16_t>(bits_of(value) >> 16 & 0x8000);
  if (std::isnan(value)) return 0x7fff;
  const float magnitude = std::fabs(value);
  if (magnitude >= 65520.0f) return sign | 0x7c00;  // rounds to 2^16 or is infinite
  if (magnitude == 0) return sign;
  int exponent;
  std::frexp(magnitude, &exponent);
  // Spacing of halves here: 2^(exponent - 11), but not below the subnormals' 2^-24. nearbyint
  // rounds to nearest even; a carry into the next exponent comes out right in the sum of fields.
  const int spacing = exponent - 11 > -24 ? exponent - 11 : -24;
  const uint32_t units = static_cast<uint32_t>(std::nearbyint(std::ldexp(magnitude, -spacing)));
  const uint32_t biased = spacing + 24;  // 0: subnormals and the first binade
  return static_cast<uint16_t>(sign | ((biased << 10) + units));
}

}  // namespace hyperstreams::cuda::emulation
