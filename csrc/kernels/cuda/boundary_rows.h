// Rows of streams as floats, their type known at run time: a branch that all threads take alike, so
// that the kernels in which maps run are not templates over it.
#pragma once

#include "device/device.h"

namespace hyperstreams::cuda {

constexpr int kRowChannels = 8;

/// Row i from from[i * stride], all loads before any use. whole: rows are whole 16-byte vectors.
template <class S, int kRows>
__device__ __forceinline__ void load_rows_of(bool whole, const S* from, int64_t stride,
                                             int64_t count, float (&to)[kRows][kRowChannels]) {
  Packed<S, kRowChannels> words[kRows];
  if (whole) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      words[i] = packed(load_vector<true, kRowChannels>(from + i * stride, count));
    }
  } else {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      words[i] = packed(load_vector<false, kRowChannels>(from + i * stride, count));
    }
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int k = 0; k < kRowChannels; ++k) to[i][k] = words[i][k];
  }
}

/// kRows rows of `count` more channels from element `offset` of `from` on, zeros beyond them.
template <int kRows>
__device__ __forceinline__ void load_rows(DType dtype, bool whole, const void* from, int64_t offset,
                                          int64_t stride, int64_t count,
                                          float (&to)[kRows][kRowChannels]) {
  if (dtype == DType::kFloat32) {
    load_rows_of(whole, static_cast<const float*>(from) + offset, stride, count, to);
  } else if (dtype == DType::kBFloat16) {
    load_rows_of(whole, static_cast<const BFloat16*>(from) + offset, stride, count, to);
  } else {
    load_rows_of(whole, static_cast<const Float16*>(from) + offset, stride, count, to);
  }
}

template <class S>
__device__ __forceinline__ void store_row_of(bool whole, S* to, int64_t count,
                                             const float (&from)[kRowChannels]) {
  if (whole) {
    store_packed<true>(to, count, packed<S>(from));
  } else {
    store_packed<false>(to, count, packed<S>(from));
  }
}

/// Rounds and writes a row.
__device__ __forceinline__ void store_row(DType dtype, bool whole, void* to, int64_t offset,
                                          int64_t count, const float (&from)[kRowChannels]) {
  if (dtype == DType::kFloat32) {
    store_row_of(whole, static_cast<float*>(to) + offset, count, from);
  } else if (dtype == DType::kBFloat16) {
    store_row_of(whole, static_cast<BFloat16*>(to) + offset, count, from);
  } else {
    store_row_of(whole, static_cast<Float16*>(to) + offset, count, from);
  }
}

template <class S>
__device__ __forceinline__ void round_row_of(float (&row)[kRowChannels]) {
#pragma unroll
  for (int k = 0; k < kRowChannels; ++k) row[k] = to_float(from_float<S>(row[k]));
}

__device__ __forceinline__ void round_row(DType dtype, float (&row)[kRowChannels]) {
  if (dtype == DType::kBFloat16) {
    round_row_of<BFloat16>(row);
  } else if (dtype == DType::kFloat16) {
    round_row_of<Float16>(row);
  }
}

}  // namespace hyperstreams::cuda
