// Elementary functions on lanes, from explicit fma and exact operations alone: the same bits on
// AVX2 and AVX-512. Relative error below 2e-7 (float) and 4e-16 (double), except where exp_below
// and sigmoid round to 0 what is no normal number; NaN gives NaN.
#pragma once

#include "simd.h"

// Called, not inlined: their callers are long, and a call costs little beside the function.
#define HYPERSTREAMS_OUTLINE __attribute__((noinline))

namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE {

template <class T>
struct MathConstants;

template <>
struct MathConstants<float> {
  static constexpr float ln2_high = 0x1.62e400p-1f;  // 15 bits: a multiple by an exponent is exact
  static constexpr float ln2_low = 0x1.7f7d1cp-20f;
  static constexpr float lowest = -104.0f, highest = 89.0f;  // exp is 0, infinite beyond
  static constexpr float lowest_normal = -88.0f;             // exp is normal, or nearly
  static constexpr int exp_degree = 7, log_terms = 5;
  static constexpr int largest_power = 64;
};

template <>
struct MathConstants<double> {
  static constexpr double ln2_high = 0x1.62e42fefa38p-1;
  static constexpr double ln2_low = 0x1.ef35793c7673p-45;
  static constexpr double lowest = -746.0, highest = 710.0;
  static constexpr double lowest_normal = -708.0;
  static constexpr int exp_degree = 13, log_terms = 11;
  static constexpr int largest_power = 512;
};

template <class T>
constexpr T inverse_factorial(int k) {
  double product = 1;
  for (int j = 2; j <= k; ++j) product *= j;
  return static_cast<T>(1.0 / product);
}

// inline_f<kCount>(x) replaces x[0, kCount) by f(x) step by step: the chains of dependent
// operations overlap. kOverlap of them fill the registers.
#ifdef HYPERSTREAMS_ISA_IS_AVX512
constexpr int kOverlap = 4;
#else
constexpr int kOverlap = 2;
#endif

/// exp(x) = (1 + fraction) 2^exponent with |fraction| <= 0.42, for x within [lowest, highest].
template <class T, int kCount>
struct ExpParts {
  Lanes<T> fraction[kCount], exponent[kCount];

  explicit HYPERSTREAMS_INLINE ExpParts(const Lanes<T>* x) {
    using lanes_t = Lanes<T>;
    using constants = MathConstants<T>;
    constexpr int degree = constants::exp_degree;
    const lanes_t log2_e = lanes_t::set(static_cast<T>(1.4426950408889634074));
    for (int j = 0; j < kCount; ++j) exponent[j] = (x[j] * log2_e).round();
    lanes_t r[kCount], p[kCount];
    for (int j = 0; j < kCount; ++j) {
      r[j] = fma(exponent[j], lanes_t::set(-constants::ln2_high), x[j]);
    }
    for (int j = 0; j < kCount; ++j) {
      r[j] = fma(exponent[j], lanes_t::set(-constants::ln2_low), r[j]);
    }
    for (int j = 0; j < kCount; ++j) p[j] = lanes_t::set(inverse_factorial<T>(degree));
    for (int k = degree - 1; k >= 2; --k) {
      const lanes_t coefficient = lanes_t::set(inverse_factorial<T>(k));
      for (int j = 0; j < kCount; ++j) p[j] = fma(p[j], r[j], coefficient);
    }
    for (int j = 0; j < kCount; ++j) fraction[j] = fma(p[j], r[j] * r[j], r[j]);
  }
};

/// x 2^k for integral k, rounded once.
#ifdef HYPERSTREAMS_ISA_IS_AVX512
HYPERSTREAMS_INLINE Lanes<float> scale(Lanes<float> x, Lanes<float> k) {
  return {_mm512_scalef_ps(x.v, k.v)};
}
HYPERSTREAMS_INLINE Lanes<double> scale(Lanes<double> x, Lanes<double> k) {
  return {_mm512_scalef_pd(x.v, k.v)};
}
#else
template <class T>
HYPERSTREAMS_INLINE Lanes<T> scale(Lanes<T> x, Lanes<T> k) {
  // Two factors, each of which is a normal number; the first product is exact.
  const Lanes<T> half = (k * Lanes<T>::set(T(0.5))).round();
  return x * half.pow2() * (k - half).pow2();
}
#endif

/// e^x, with gradual underflow.
template <class T>
HYPERSTREAMS_OUTLINE Lanes<T> exp(Lanes<T> x) {
  using lanes_t = Lanes<T>;
  using constants = MathConstants<T>;
  // A NaN is the second operand of both, which they return.
  const lanes_t clamped =
      min(lanes_t::set(constants::highest), max(lanes_t::set(constants::lowest), x));
  const ExpParts<T, 1> parts(&clamped);
  return scale(lanes_t::set(1) + parts.fraction[0], parts.exponent[0]);
}

/// Natural logarithm of positive normal numbers.
template <class T>
HYPERSTREAMS_OUTLINE Lanes<T> log(Lanes<T> x) {
  using lanes_t = Lanes<T>;
  using constants = MathConstants<T>;
  const lanes_t one = lanes_t::set(1);
  lanes_t exponent = lanes_t::set(0);
  // Exact divisions by powers of two bring x into [1/sqrt 2, sqrt 2).
  for (int power = constants::largest_power; power >= 1; power /= 2) {
    const lanes_t factor = lanes_t::set(static_cast<T>(power)).pow2();
    const lanes_t inverse = lanes_t::set(static_cast<T>(-power)).pow2();
    const lanes_t shift = lanes_t::set(static_cast<T>(power));
    const auto small = less(x, lanes_t::set(T(1.4142135623730951)) * inverse);
    x = select(small, x * factor, x);
    exponent = select(small, exponent - shift, exponent);
    const auto large = less(lanes_t::set(T(0.70710678118654752)) * factor, x);
    x = select(large, x * inverse, x);
    exponent = select(large, exponent + shift, exponent);
  }
  // log x = 2 artanh(s), s = (x - 1)/(x + 1), |s| <= 0.172.
  const lanes_t s = (x - one) / (x + one), s2 = s * s;
  lanes_t p = lanes_t::set(T(1) / T(2 * constants::log_terms - 1));
  for (int k = constants::log_terms - 2; k >= 1; --k) {
    p = fma(p, s2, lanes_t::set(T(1) / T(2 * k + 1)));
  }
  const lanes_t twice = s + s;
  lanes_t result = fma(p * s2, twice, exponent * lanes_t::set(constants::ln2_low));
  result = result + twice;
  return fma(exponent, lanes_t::set(constants::ln2_high), result);
}

template <int kCount, class T>
HYPERSTREAMS_INLINE void inline_sigmoid(Lanes<T>* x) {
  using lanes_t = Lanes<T>;
  using constants = MathConstants<T>;
  const lanes_t one = lanes_t::set(1);
  // A NaN is the second operand of both, which they return. Small exponentials add nothing to 1.
  for (int j = 0; j < kCount; ++j) {
    x[j] = min(lanes_t::set(constants::highest),
               max(lanes_t::set(constants::lowest_normal), lanes_t::set(0) - x[j]));
  }
  const ExpParts<T, kCount> parts(x);
  for (int j = 0; j < kCount; ++j) {
    x[j] = one / fma(parts.fraction[j] + one, parts.exponent[j].pow2(), one);
  }
}

template <int kCount, class T>
HYPERSTREAMS_INLINE void inline_tanh(Lanes<T>* x) {
  using lanes_t = Lanes<T>;
  const lanes_t zero = lanes_t::set(0), one = lanes_t::set(1);
  // expm1(-2|x|) without cancellation; beyond 20 tanh rounds to 1.
  lanes_t twice[kCount];
  for (int j = 0; j < kCount; ++j) {
    twice[j] = min(lanes_t::set(20), abs(x[j])) * lanes_t::set(-2);
  }
  const ExpParts<T, kCount> parts(twice);
  for (int j = 0; j < kCount; ++j) {
    const lanes_t power = parts.exponent[j].pow2();
    const lanes_t m = fma(parts.fraction[j], power, power - one);
    const lanes_t positive = (zero - m) / (lanes_t::set(2) + m);
    x[j] = select(less(x[j], zero), zero - positive, positive);
  }
}

template <class T>
HYPERSTREAMS_OUTLINE Lanes<T> tanh(Lanes<T> x) {
  inline_tanh<1>(&x);
  return x;
}

template <int kCount, class T>
HYPERSTREAMS_INLINE void inline_exp_below(const Lanes<T>* x, Lanes<T> top, Lanes<T>* out) {
  using lanes_t = Lanes<T>;
  lanes_t shifted[kCount];
  for (int j = 0; j < kCount; ++j) {
    shifted[j] = max(lanes_t::set(MathConstants<T>::lowest_normal), x[j] - top);
  }
  const ExpParts<T, kCount> parts(shifted);
  for (int j = 0; j < kCount; ++j) {
    out[j] = (lanes_t::set(1) + parts.fraction[j]) * parts.exponent[j].pow2();
  }
}

/// out[k] = exp(x[k] - top) for x[0, count) <= top, or 0 where that is no normal number.
template <class T>
HYPERSTREAMS_OUTLINE void exp_below(const Lanes<T>* x, Lanes<T> top, int count, Lanes<T>* out) {
  int k = 0;
  for (; k + kOverlap <= count; k += kOverlap) inline_exp_below<kOverlap>(x + k, top, out + k);
  for (; k < count; ++k) inline_exp_below<1>(x + k, top, out + k);
}

/// True when a < b in some lane.
template <class T>
HYPERSTREAMS_INLINE bool any_less(Lanes<T> a, Lanes<T> b) {
  return select(less(a, b), Lanes<T>::set(1), Lanes<T>::set(0)).sum() > 0;
}

}  // namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE
