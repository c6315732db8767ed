// Lanes in two 256-bit registers. See simd.h for the contract.
#pragma once

#include <immintrin.h>

namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE {

template <>
struct Lanes<float> {
  static constexpr int size = 16;
  __m256 lo, hi;

  Lanes() = default;
  HYPERSTREAMS_INLINE Lanes(__m256 low, __m256 high) : lo(low), hi(high) {}
  HYPERSTREAMS_INLINE Lanes(const Lanes& other) : lo(other.lo), hi(other.hi) {}
  // GCC copies a pair of registers through the stack, eight bytes at a time, where it is not told.
  HYPERSTREAMS_INLINE Lanes& operator=(const Lanes& other) {
    lo = other.lo;
    hi = other.hi;
    return *this;
  }

  struct Mask {
    __m256 lo, hi;
  };

  static HYPERSTREAMS_INLINE Lanes set(float value) {
    return {_mm256_set1_ps(value), _mm256_set1_ps(value)};
  }
  static HYPERSTREAMS_INLINE Lanes load(const float* p) {
    return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
  }
  static HYPERSTREAMS_INLINE __m256 widen(const BFloat16* p) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  static HYPERSTREAMS_INLINE Lanes load(const BFloat16* p) { return {widen(p), widen(p + 8)}; }
  static HYPERSTREAMS_INLINE Lanes load(const Float16* p) {
    const __m128i* bits = reinterpret_cast<const __m128i*>(p);
    return {_mm256_cvtph_ps(_mm_loadu_si128(bits)), _mm256_cvtph_ps(_mm_loadu_si128(bits + 1))};
  }
  HYPERSTREAMS_INLINE void store(float* p) const {
    _mm256_storeu_ps(p, lo);
    _mm256_storeu_ps(p + 8, hi);
  }
  static HYPERSTREAMS_INLINE __m256i narrow(__m256 v) {
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_srli_epi32(
        _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc0), is_nan);
  }
  HYPERSTREAMS_INLINE void store(BFloat16* p) const {
    const __m256i packed = _mm256_packus_epi32(narrow(lo), narrow(hi));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
  }
  HYPERSTREAMS_INLINE void store(Float16* p) const {
    constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(lo, mode));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p) + 1, _mm256_cvtps_ph(hi, mode));
  }

  friend HYPERSTREAMS_INLINE Lanes operator+(Lanes a, Lanes b) {
    return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
  }
  friend HYPERSTREAMS_INLINE Lanes operator-(Lanes a, Lanes b) {
    return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
  }
  friend HYPERSTREAMS_INLINE Lanes operator*(Lanes a, Lanes b) {
    return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
  }
  friend HYPERSTREAMS_INLINE Lanes operator/(Lanes a, Lanes b) {
    return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
  }
  friend HYPERSTREAMS_INLINE Lanes fma(Lanes a, Lanes b, Lanes c) {
    return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
  }
  friend HYPERSTREAMS_INLINE Lanes max(Lanes a, Lanes b) {
    return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
  }
  friend HYPERSTREAMS_INLINE Lanes min(Lanes a, Lanes b) {
    return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
  }
  friend HYPERSTREAMS_INLINE Lanes sqrt(Lanes a) {
    return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)};
  }
  friend HYPERSTREAMS_INLINE Lanes abs(Lanes a) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
  }
  friend HYPERSTREAMS_INLINE Mask less(Lanes a, Lanes b) {
    return {_mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ)};
  }
  friend HYPERSTREAMS_INLINE Lanes select(Mask mask, Lanes a, Lanes b) {
    return {_mm256_blendv_ps(b.lo, a.lo, mask.lo), _mm256_blendv_ps(b.hi, a.hi, mask.hi)};
  }
  HYPERSTREAMS_INLINE Lanes round() const {
    constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(lo, mode), _mm256_round_ps(hi, mode)};
  }
  HYPERSTREAMS_INLINE Lanes pow2() const {
    const __m256i bias = _mm256_set1_epi32(127);
    const __m256i a = _mm256_add_epi32(_mm256_cvtps_epi32(lo), bias);
    const __m256i b = _mm256_add_epi32(_mm256_cvtps_epi32(hi), bias);
    return {_mm256_castsi256_ps(_mm256_slli_epi32(a, 23)),
            _mm256_castsi256_ps(_mm256_slli_epi32(b, 23))};
  }
  HYPERSTREAMS_INLINE float sum() const {
    const __m256 eight = _mm256_add_ps(lo, hi);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
};

template <>
struct Lanes<double> {
  static constexpr int size = 8;
  __m256d lo, hi;

  Lanes() = default;
  HYPERSTREAMS_INLINE Lanes(__m256d low, __m256d high) : lo(low), hi(high) {}
  HYPERSTREAMS_INLINE Lanes(const Lanes& other) : lo(other.lo), hi(other.hi) {}
  // GCC copies a pair of registers through the stack, eight bytes at a time, where it is not told.
  HYPERSTREAMS_INLINE Lanes& operator=(const Lanes& other) {
    lo = other.lo;
    hi = other.hi;
    return *this;
  }

  struct Mask {
    __m256d lo, hi;
  };

  static HYPERSTREAMS_INLINE Lanes set(double value) {
    return {_mm256_set1_pd(value), _mm256_set1_pd(value)};
  }
  static HYPERSTREAMS_INLINE Lanes load(const double* p) {
    return {_mm256_loadu_pd(p), _mm256_loadu_pd(p + 4)};
  }
  HYPERSTREAMS_INLINE void store(double* p) const {
    _mm256_storeu_pd(p, lo);
    _mm256_storeu_pd(p + 4, hi);
  }

  friend HYPERSTREAMS_INLINE Lanes operator+(Lanes a, Lanes b) {
    return {_mm256_add_pd(a.lo, b.lo), _mm256_add_pd(a.hi, b.hi)};
  }
  friend HYPERSTREAMS_INLINE Lanes operator-(Lanes a, Lanes b) {
    return {_mm256_sub_pd(a.lo, b.lo), _mm256_sub_pd(a.hi, b.hi)};
  }
  friend HYPERSTREAMS_INLINE Lanes operator*(Lanes a, Lanes b) {
    return {_mm256_mul_pd(a.lo, b.lo), _mm256_mul_pd(a.hi, b.hi)};
  }
  friend HYPERSTREAMS_INLINE Lanes operator/(Lanes a, Lanes b) {
    return {_mm256_div_pd(a.lo, b.lo), _mm256_div_pd(a.hi, b.hi)};
  }
  friend HYPERSTREAMS_INLINE Lanes fma(Lanes a, Lanes b, Lanes c) {
    return {_mm256_fmadd_pd(a.lo, b.lo, c.lo), _mm256_fmadd_pd(a.hi, b.hi, c.hi)};
  }
  friend HYPERSTREAMS_INLINE Lanes max(Lanes a, Lanes b) {
    return {_mm256_max_pd(a.lo, b.lo), _mm256_max_pd(a.hi, b.hi)};
  }
  friend HYPERSTREAMS_INLINE Lanes min(Lanes a, Lanes b) {
    return {_mm256_min_pd(a.lo, b.lo), _mm256_min_pd(a.hi, b.hi)};
  }
  friend HYPERSTREAMS_INLINE Lanes sqrt(Lanes a) {
    return {_mm256_sqrt_pd(a.lo), _mm256_sqrt_pd(a.hi)};
  }
  friend HYPERSTREAMS_INLINE Lanes abs(Lanes a) {
    const __m256d sign = _mm256_set1_pd(-0.0);
    return {_mm256_andnot_pd(sign, a.lo), _mm256_andnot_pd(sign, a.hi)};
  }
  friend HYPERSTREAMS_INLINE Mask less(Lanes a, Lanes b) {
    return {_mm256_cmp_pd(a.lo, b.lo, _CMP_LT_OQ), _mm256_cmp_pd(a.hi, b.hi, _CMP_LT_OQ)};
  }
  friend HYPERSTREAMS_INLINE Lanes select(Mask mask, Lanes a, Lanes b) {
    return {_mm256_blendv_pd(b.lo, a.lo, mask.lo), _mm256_blendv_pd(b.hi, a.hi, mask.hi)};
  }
  HYPERSTREAMS_INLINE Lanes round() const {
    constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_pd(lo, mode), _mm256_round_pd(hi, mode)};
  }
  static HYPERSTREAMS_INLINE __m256d pow2(__m256d v) {
    const __m256i wide = _mm256_cvtepi32_epi64(_mm256_cvtpd_epi32(v));
    return _mm256_castsi256_pd(
        _mm256_slli_epi64(_mm256_add_epi64(wide, _mm256_set1_epi64x(1023)), 52));
  }
  HYPERSTREAMS_INLINE Lanes pow2() const { return {pow2(lo), pow2(hi)}; }
  HYPERSTREAMS_INLINE double sum() const {
    const __m256d four = _mm256_add_pd(lo, hi);
    const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
    return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
  }
};

}  // namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE
