// Lanes in one 512-bit register. See simd.h for the contract.
#pragma once

#include <immintrin.h>

namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE {

template <>
struct Lanes<float> {
  static constexpr int size = 16;
  __m512 v;
  using Mask = __mmask16;

  static HYPERSTREAMS_INLINE Lanes set(float value) { return {_mm512_set1_ps(value)}; }
  static HYPERSTREAMS_INLINE Lanes load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static HYPERSTREAMS_INLINE Lanes load(const BFloat16* p) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
  }
  static HYPERSTREAMS_INLINE Lanes load(const Float16* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }
  HYPERSTREAMS_INLINE void store(float* p) const { _mm512_storeu_ps(p, v); }
  HYPERSTREAMS_INLINE void store(BFloat16* p) const {
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_srli_epi32(
        _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    const __mmask16 is_nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    rounded = _mm512_mask_mov_epi32(rounded, is_nan, _mm512_set1_epi32(0x7fc0));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(rounded));
  }
  HYPERSTREAMS_INLINE void store(Float16* p) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }

  friend HYPERSTREAMS_INLINE Lanes operator+(Lanes a, Lanes b) { return {_mm512_add_ps(a.v, b.v)}; }
  friend HYPERSTREAMS_INLINE Lanes operator-(Lanes a, Lanes b) { return {_mm512_sub_ps(a.v, b.v)}; }
  friend HYPERSTREAMS_INLINE Lanes operator*(Lanes a, Lanes b) { return {_mm512_mul_ps(a.v, b.v)}; }
  friend HYPERSTREAMS_INLINE Lanes operator/(Lanes a, Lanes b) { return {_mm512_div_ps(a.v, b.v)}; }
  friend HYPERSTREAMS_INLINE Lanes fma(Lanes a, Lanes b, Lanes c) {
    return {_mm512_fmadd_ps(a.v, b.v, c.v)};
  }
  friend HYPERSTREAMS_INLINE Lanes max(Lanes a, Lanes b) { return {_mm512_max_ps(a.v, b.v)}; }
  friend HYPERSTREAMS_INLINE Lanes min(Lanes a, Lanes b) { return {_mm512_min_ps(a.v, b.v)}; }
  friend HYPERSTREAMS_INLINE Lanes sqrt(Lanes a) { return {_mm512_sqrt_ps(a.v)}; }
  friend HYPERSTREAMS_INLINE Lanes abs(Lanes a) { return {_mm512_abs_ps(a.v)}; }
  friend HYPERSTREAMS_INLINE Mask less(Lanes a, Lanes b) {
    return _mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ);
  }
  friend HYPERSTREAMS_INLINE Lanes select(Mask mask, Lanes a, Lanes b) {
    return {_mm512_mask_blend_ps(mask, b.v, a.v)};
  }
  HYPERSTREAMS_INLINE Lanes round() const {
    return {_mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  HYPERSTREAMS_INLINE Lanes pow2() const {
    const __m512i biased = _mm512_add_epi32(_mm512_cvtps_epi32(v), _mm512_set1_epi32(127));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(biased, 23))};
  }
  HYPERSTREAMS_INLINE float sum() const {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
};

template <>
struct Lanes<double> {
  static constexpr int size = 8;
  __m512d v;
  using Mask = __mmask8;

  static HYPERSTREAMS_INLINE Lanes set(double value) { return {_mm512_set1_pd(value)}; }
  static HYPERSTREAMS_INLINE Lanes load(const double* p) { return {_mm512_loadu_pd(p)}; }
  HYPERSTREAMS_INLINE void store(double* p) const { _mm512_storeu_pd(p, v); }

  friend HYPERSTREAMS_INLINE Lanes operator+(Lanes a, Lanes b) { return {_mm512_add_pd(a.v, b.v)}; }
  friend HYPERSTREAMS_INLINE Lanes operator-(Lanes a, Lanes b) { return {_mm512_sub_pd(a.v, b.v)}; }
  friend HYPERSTREAMS_INLINE Lanes operator*(Lanes a, Lanes b) { return {_mm512_mul_pd(a.v, b.v)}; }
  friend HYPERSTREAMS_INLINE Lanes operator/(Lanes a, Lanes b) { return {_mm512_div_pd(a.v, b.v)}; }
  friend HYPERSTREAMS_INLINE Lanes fma(Lanes a, Lanes b, Lanes c) {
    return {_mm512_fmadd_pd(a.v, b.v, c.v)};
  }
  friend HYPERSTREAMS_INLINE Lanes max(Lanes a, Lanes b) { return {_mm512_max_pd(a.v, b.v)}; }
  friend HYPERSTREAMS_INLINE Lanes min(Lanes a, Lanes b) { return {_mm512_min_pd(a.v, b.v)}; }
  friend HYPERSTREAMS_INLINE Lanes sqrt(Lanes a) { return {_mm512_sqrt_pd(a.v)}; }
  friend HYPERSTREAMS_INLINE Lanes abs(Lanes a) { return {_mm512_abs_pd(a.v)}; }
  friend HYPERSTREAMS_INLINE Mask less(Lanes a, Lanes b) {
    return _mm512_cmp_pd_mask(a.v, b.v, _CMP_LT_OQ);
  }
  friend HYPERSTREAMS_INLINE Lanes select(Mask mask, Lanes a, Lanes b) {
    return {_mm512_mask_blend_pd(mask, b.v, a.v)};
  }
  HYPERSTREAMS_INLINE Lanes round() const {
    return {_mm512_roundscale_pd(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  HYPERSTREAMS_INLINE Lanes pow2() const {
    const __m512i biased = _mm512_add_epi64(_mm512_cvtpd_epi64(v), _mm512_set1_epi64(1023));
    return {_mm512_castsi512_pd(_mm512_slli_epi64(biased, 52))};
  }
  HYPERSTREAMS_INLINE double sum() const {
    const __m256d four = _mm256_add_pd(_mm512_castpd512_pd256(v), _mm512_extractf64x4_pd(v, 1));
    const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
    return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
  }
};

}  // namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE
