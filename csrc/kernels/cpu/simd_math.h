// Elementary functions on lanes, from explicit fma and exact operations alone: the same bits on
// AVX2 and AVX-512. Relative error below 2e-7 (float) and 4e-16 (double); NaN gives NaN.
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
  static constexpr int exp_degree = 7, log_terms = 5;
  static constexpr int largest_power = 64;
};

template <>
struct MathConstants<double> {
  static constexpr double ln2_high = 0x1.62e42fefa38p-1;
  static constexpr double ln2_low = 0x1.ef35793c7673p-45;
  static constexpr double lowest = -746.0, highest = 710.0;
  static constexpr int exp_degree = 13, log_terms = 11;
  static constexpr int largest_power = 512;
};

template <class T>
constexpr T inverse_factorial(int k) {
  double product = 1;
  for (int j = 2; j <= k; ++j) product *= j;
  return static_cast<T>(1.0 / product);
}

/// exp(x) = (1 + fraction) 2^exponent with |fraction| <= 0.42, for x within [lowest, highest].
template <class T>
struct ExpParts {
  Lanes<T> fraction, exponent;

  explicit HYPERSTREAMS_INLINE ExpParts(Lanes<T> x) {
    using lanes_t = Lanes<T>;
    using constants = MathConstants<T>;
    exponent = (x * lanes_t::set(static_cast<T>(1.4426950408889634074))).round();
    lanes_t r = fma(exponent, lanes_t::set(-constants::ln2_high), x);
    r = fma(exponent, lanes_t::set(-constants::ln2_low), r);
    lanes_t p = lanes_t::set(inverse_factorial<T>(constants::exp_degree));
    for (int k = constants::exp_degree - 1; k >= 2; --k) {
      p = fma(p, r, lanes_t::set(inverse_factorial<T>(k)));
    }
    fraction = fma(p, r * r, r);
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
HYPERSTREAMS_INLINE Lanes<T> inline_exp(Lanes<T> x) {
  using lanes_t = Lanes<T>;
  using constants = MathConstants<T>;
  // A NaN is the second operand of both, which they return.
  const lanes_t clamped =
      min(lanes_t::set(constants::highest), max(lanes_t::set(constants::lowest), x));
  const ExpParts<T> parts(clamped);
  return scale(lanes_t::set(1) + parts.fraction, parts.exponent);
}

template <class T>
HYPERSTREAMS_OUTLINE Lanes<T> exp(Lanes<T> x) {
  return inline_exp(x);
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

template <class T>
HYPERSTREAMS_INLINE Lanes<T> inline_sigmoid(Lanes<T> x) {
  using lanes_t = Lanes<T>;
  const lanes_t one = lanes_t::set(1);
  return one / (one + inline_exp(lanes_t::set(0) - x));
}

template <class T>
HYPERSTREAMS_INLINE Lanes<T> inline_tanh(Lanes<T> x) {
  using lanes_t = Lanes<T>;
  const lanes_t zero = lanes_t::set(0), one = lanes_t::set(1);
  // expm1(-2|x|) without cancellation; beyond 20 tanh rounds to 1.
  const lanes_t magnitude = min(lanes_t::set(20), abs(x));
  const ExpParts<T> parts(magnitude * lanes_t::set(-2));
  const lanes_t power = parts.exponent.pow2();
  const lanes_t m = fma(parts.fraction, power, power - one);
  const lanes_t positive = (zero - m) / (lanes_t::set(2) + m);
  return select(less(x, zero), zero - positive, positive);
}

template <class T>
HYPERSTREAMS_OUTLINE Lanes<T> tanh(Lanes<T> x) {
  return inline_tanh(x);
}

// x[0, count) to f(x), in a loop of its own so that they overlap.

template <class T>
HYPERSTREAMS_OUTLINE void exp_each(Lanes<T>* x, int count) {
  for (int k = 0; k < count; ++k) x[k] = inline_exp(x[k]);
}

template <class T>
HYPERSTREAMS_OUTLINE void sigmoid_each(Lanes<T>* x, int count) {
  for (int k = 0; k < count; ++k) x[k] = inline_sigmoid(x[k]);
}

template <class T>
HYPERSTREAMS_OUTLINE void tanh_each(Lanes<T>* x, int count) {
  for (int k = 0; k < count; ++k) x[k] = inline_tanh(x[k]);
}

/// True when a < b in some lane.
template <class T>
HYPERSTREAMS_INLINE bool any_less(Lanes<T> a, Lanes<T> b) {
  return select(less(a, b), Lanes<T>::set(1), Lanes<T>::set(0)).sum() > 0;
}

}  // namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE
