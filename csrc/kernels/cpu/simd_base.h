// Lanes in plain C++: any architecture. See simd.h for the contract.
#pragma once

namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE {

HYPERSTREAMS_INLINE float bits_to_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

HYPERSTREAMS_INLINE uint32_t float_to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

HYPERSTREAMS_INLINE float to_float(BFloat16 value) {
  return bits_to_float(static_cast<uint32_t>(value.bits) << 16);
}

HYPERSTREAMS_INLINE BFloat16 to_bfloat16(float value) {
  if (value != value) return {0x7fc0};
  const uint32_t bits = float_to_bits(value);
  return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

inline float to_float(Float16 value) {
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000) << 16;
  const uint32_t exponent = (value.bits >> 10) & 0x1f;
  const uint32_t mantissa = value.bits & 0x3ff;
  if (exponent == 0x1f) return bits_to_float(sign | 0x7f800000 | (mantissa << 13));
  if (exponent != 0) return bits_to_float(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
  return sign ? -magnitude : magnitude;
}

inline Float16 to_float16(float value) {
  const uint32_t bits = float_to_bits(value);
  const uint32_t sign = (bits >> 16) & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return {static_cast<uint16_t>(sign | 0x7e00)};
  if (magnitude >= 0x477ff000) return {static_cast<uint16_t>(sign | 0x7c00)};
  if (magnitude >= 0x38800000) {
    const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
    return {static_cast<uint16_t>(sign | ((rounded - 0x38000000) >> 13))};
  }
  // Subnormal: adding 0.5 places the half's last bit at the float's last bit, rounding to even.
  const float shifted = bits_to_float(magnitude) + 0.5f;
  return {static_cast<uint16_t>(sign | (float_to_bits(shifted) - 0x3f000000))};
}

template <class T>
struct LanesSize;
template <>
struct LanesSize<float> {
  static constexpr int value = 16;
};
template <>
struct LanesSize<double> {
  static constexpr int value = 8;
};

template <class T>
struct Lanes {
  static constexpr int size = LanesSize<T>::value;
  T v[size];

  struct Mask {
    bool m[size];
  };

  template <class F>
  static HYPERSTREAMS_INLINE Lanes make(const F& f) {
    Lanes r;
    for (int l = 0; l < size; ++l) r.v[l] = f(l);
    return r;
  }

  static HYPERSTREAMS_INLINE Lanes set(T value) {
    return make([&](int) { return value; });
  }
  static HYPERSTREAMS_INLINE Lanes load(const T* p) {
    return make([&](int l) { return p[l]; });
  }
  static HYPERSTREAMS_INLINE Lanes load(const BFloat16* p) {
    return make([&](int l) { return to_float(p[l]); });
  }
  static HYPERSTREAMS_INLINE Lanes load(const Float16* p) {
    return make([&](int l) { return to_float(p[l]); });
  }
  HYPERSTREAMS_INLINE void store(T* p) const {
    for (int l = 0; l < size; ++l) p[l] = v[l];
  }
  HYPERSTREAMS_INLINE void store(BFloat16* p) const {
    for (int l = 0; l < size; ++l) p[l] = to_bfloat16(v[l]);
  }
  HYPERSTREAMS_INLINE void store(Float16* p) const {
    for (int l = 0; l < size; ++l) p[l] = to_float16(v[l]);
  }

  friend HYPERSTREAMS_INLINE Lanes operator+(const Lanes& a, const Lanes& b) {
    return make([&](int l) { return a.v[l] + b.v[l]; });
  }
  friend HYPERSTREAMS_INLINE Lanes operator-(const Lanes& a, const Lanes& b) {
    return make([&](int l) { return a.v[l] - b.v[l]; });
  }
  friend HYPERSTREAMS_INLINE Lanes operator*(const Lanes& a, const Lanes& b) {
    return make([&](int l) { return a.v[l] * b.v[l]; });
  }
  friend HYPERSTREAMS_INLINE Lanes operator/(const Lanes& a, const Lanes& b) {
    return make([&](int l) { return a.v[l] / b.v[l]; });
  }
  friend HYPERSTREAMS_INLINE Lanes fma(const Lanes& a, const Lanes& b, const Lanes& c) {
    return make([&](int l) { return a.v[l] * b.v[l] + c.v[l]; });
  }
  friend HYPERSTREAMS_INLINE Lanes max(const Lanes& a, const Lanes& b) {
    return make([&](int l) { return a.v[l] > b.v[l] ? a.v[l] : b.v[l]; });
  }
  friend HYPERSTREAMS_INLINE Lanes min(const Lanes& a, const Lanes& b) {
    return make([&](int l) { return a.v[l] < b.v[l] ? a.v[l] : b.v[l]; });
  }
  friend HYPERSTREAMS_INLINE Lanes sqrt(const Lanes& a) {
    return make([&](int l) { return std::sqrt(a.v[l]); });
  }
  friend HYPERSTREAMS_INLINE Lanes abs(const Lanes& a) {
    return make([&](int l) { return std::fabs(a.v[l]); });
  }
  friend HYPERSTREAMS_INLINE Mask less(const Lanes& a, const Lanes& b) {
    Mask r;
    for (int l = 0; l < size; ++l) r.m[l] = a.v[l] < b.v[l];
    return r;
  }
  friend HYPERSTREAMS_INLINE Lanes select(const Mask& mask, const Lanes& a, const Lanes& b) {
    return make([&](int l) { return mask.m[l] ? a.v[l] : b.v[l]; });
  }
  HYPERSTREAMS_INLINE Lanes round() const {
    return make([&](int l) { return std::nearbyint(v[l]); });
  }
  HYPERSTREAMS_INLINE Lanes pow2() const {
    return make([&](int l) { return static_cast<T>(std::ldexp(1.0, static_cast<int>(v[l]))); });
  }
  HYPERSTREAMS_INLINE T sum() const {
    T tree[size];
    for (int l = 0; l < size; ++l) tree[l] = v[l];
    for (int half = size / 2; half > 0; half /= 2) {
      for (int l = 0; l < half; ++l) tree[l] += tree[l + half];
    }
    return tree[0];
  }
};

}  // namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE
