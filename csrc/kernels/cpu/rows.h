// Rows of channels outside the lane loops: conversion between dtypes, scratch rows, and the last
// stage of sums over tokens.
#pragma once

#include "simd.h"

namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE {

/// Uninitialised scratch of one task. (Not std::vector: its code would be shared by ISA levels.)
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t size) : data_(new T[static_cast<size_t>(size)]) {}
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { delete[] data_; }
  T* data() { return data_; }

 private:
  T* data_;
};

template <class S, class T>
inline void load_row_as(const S* row, int64_t width, T* out) {
  using lanes_t = Lanes<accumulate_t<S>>;
  const auto convert = [](const lanes_t& value, T* to, int64_t count) {
    accumulate_t<S> buffer[lanes_t::size];
    value.store(buffer);
    for (int64_t k = 0; k < count; ++k) to[k] = static_cast<T>(buffer[k]);
  };
  for_channels<accumulate_t<S>>(
      width, [&](int64_t c) { convert(lanes_t::load(row + c), out + c, lanes_t::size); },
      [&](int64_t c, int64_t count) { convert(load_partial(row + c, count), out + c, count); });
}

template <class S, class T>
inline void store_row_as(const T* row, int64_t width, S* out) {
  using lanes_t = Lanes<accumulate_t<S>>;
  const auto convert = [](const T* from, int64_t count) {
    accumulate_t<S> buffer[lanes_t::size] = {};
    for (int64_t k = 0; k < count; ++k) buffer[k] = static_cast<accumulate_t<S>>(from[k]);
    return lanes_t::load(buffer);
  };
  for_channels<accumulate_t<S>>(
      width, [&](int64_t c) { convert(row + c, lanes_t::size).store(out + c); },
      [&](int64_t c, int64_t count) { store_partial(out + c, convert(row + c, count), count); });
}

template <class T>
inline constexpr bool is_stored_as(DType dtype) {
  return dtype == (sizeof(T) == sizeof(double) ? DType::kFloat64 : DType::kFloat32);
}

/// Element `offset` of a buffer of `dtype`, for `width` elements, converted to T.
template <class T>
inline void load_row(DType dtype, const void* data, int64_t offset, int64_t width, T* out) {
  dispatch_dtype(dtype, [&](auto tag) {
    using scalar_t = typename decltype(tag)::type;
    load_row_as(static_cast<const scalar_t*>(data) + offset, width, out);
  });
}

/// The reverse of load_row, rounding once.
template <class T>
inline void store_row(DType dtype, const T* row, int64_t width, void* data, int64_t offset) {
  dispatch_dtype(dtype, [&](auto tag) {
    using scalar_t = typename decltype(tag)::type;
    store_row_as(row, width, static_cast<scalar_t*>(data) + offset);
  });
}

template <class T>
inline void zero_row(int64_t width, T* row) {
  for (int64_t k = 0; k < width; ++k) row[k] = 0;
}

/// to[k] += from[k].
template <class To, class From>
inline void add_row(const From* from, int64_t width, To* to) {
  for (int64_t k = 0; k < width; ++k) to[k] += from[k];
}

/// out[k] = sum of partials[part * stride + k] over parts in order, in double.
template <class T, class P>
__attribute__((noinline)) void sum_partials(const P* partials, int64_t parts, int64_t stride,
                                            int64_t count, T* out) {
  constexpr int64_t block = 64;
  for (int64_t k = 0; k < count; k += block) {
    const int64_t size = count - k < block ? count - k : block;
    double sum[block] = {};
    for (int64_t part = 0; part < parts; ++part) {
      add_row(partials + part * stride + k, size, sum);
    }
    for (int64_t b = 0; b < size; ++b) out[k + b] = static_cast<T>(sum[b]);
  }
}

}  // namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE
