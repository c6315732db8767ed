// The operations that maps are written in, for one token per thread (plain float or double).
//
// A map is a template over a lane type V: plain numbers here, 16 tokens in SIMD lanes on the CPU.
// For any V it uses + - * /, less(a, b) and, found by argument-dependent lookup or below,
//   fma(a, b, c) = a b + c; max; min; exp; tanh; log (of positive normal numbers);
//   select(mask, if_true, if_false); any_less(a, b), true when less in some lane;
//   exp_below(x, top, count, out): out[k] = exp(x[k] - top) for x[0, count) <= top, or 0 where that
//   is no normal number
// and nothing else, so that one source serves both back ends.
#pragma once

#include <cmath>

#include "hyperstreams/common.h"

// HOST_DEVICE functions are inlined. COLD ones run once per tile: on the host they are called, and
// compiled for the run-time n alone (kColdStreams); on a device they are inlined like the others,
// so that small arrays stay in registers. On the host all of them are inlined or templates over V,
// whose type names the ISA level: levels share no code.
#if defined(__CUDACC__)
#define HYPERSTREAMS_HOST_DEVICE __host__ __device__ __forceinline__
#define HYPERSTREAMS_HOST_DEVICE_COLD __host__ __device__ __forceinline__
#else
#define HYPERSTREAMS_HOST_DEVICE inline __attribute__((always_inline))
#define HYPERSTREAMS_HOST_DEVICE_COLD __attribute__((noinline))
#endif

namespace hyperstreams::maps {

/// Up to this n a GPU thread holds a token's arrays in registers.
constexpr int kMaxRegisterStreams = 4;

/// Compile-time stream count of COLD functions called where it is kN.
#if defined(__CUDACC__)
template <int kN>
constexpr int kColdStreams = kN <= kMaxRegisterStreams ? kN : 0;
#else
template <int kN>
constexpr int kColdStreams = 0;
#endif

/// Number type inside lanes of type V, and V with every lane equal.
template <class V>
struct Lane;

template <template <class> class L, class T>
struct Lane<L<T>> {
  using scalar = T;
  static HYPERSTREAMS_HOST_DEVICE L<T> set(double value) {
    return L<T>::set(static_cast<T>(value));
  }
};

template <>
struct Lane<float> {
  using scalar = float;
  static HYPERSTREAMS_HOST_DEVICE float set(double value) { return static_cast<float>(value); }
};

template <>
struct Lane<double> {
  using scalar = double;
  static HYPERSTREAMS_HOST_DEVICE double set(double value) { return value; }
};

HYPERSTREAMS_HOST_DEVICE float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
HYPERSTREAMS_HOST_DEVICE double fma(double a, double b, double c) { return ::fma(a, b, c); }
HYPERSTREAMS_HOST_DEVICE float exp(float a) { return ::expf(a); }
HYPERSTREAMS_HOST_DEVICE double exp(double a) { return ::exp(a); }
HYPERSTREAMS_HOST_DEVICE float log(float a) { return ::logf(a); }
HYPERSTREAMS_HOST_DEVICE double log(double a) { return ::log(a); }
template <class In, class T, class Out>
HYPERSTREAMS_HOST_DEVICE void exp_below(In x, T top, int count, Out out) {
  for (int k = 0; k < count; ++k) out[k] = exp(x[k] - top);
}
HYPERSTREAMS_HOST_DEVICE float tanh(float a) { return ::tanhf(a); }
HYPERSTREAMS_HOST_DEVICE double tanh(double a) { return ::tanh(a); }
// The second operand where one is NaN, as SIMD instructions do.
HYPERSTREAMS_HOST_DEVICE float max(float a, float b) { return a > b ? a : b; }
HYPERSTREAMS_HOST_DEVICE double max(double a, double b) { return a > b ? a : b; }
HYPERSTREAMS_HOST_DEVICE float min(float a, float b) { return a < b ? a : b; }
HYPERSTREAMS_HOST_DEVICE double min(double a, double b) { return a < b ? a : b; }
HYPERSTREAMS_HOST_DEVICE bool less(float a, float b) { return a < b; }
HYPERSTREAMS_HOST_DEVICE bool less(double a, double b) { return a < b; }
HYPERSTREAMS_HOST_DEVICE float select(bool mask, float a, float b) { return mask ? a : b; }
HYPERSTREAMS_HOST_DEVICE double select(bool mask, double a, double b) { return mask ? a : b; }
HYPERSTREAMS_HOST_DEVICE bool any_less(float a, float b) { return a < b; }
HYPERSTREAMS_HOST_DEVICE bool any_less(double a, double b) { return a < b; }

}  // namespace hyperstreams::maps
