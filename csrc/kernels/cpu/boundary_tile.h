// What boundary's forward and backward share: the size of a tile of tokens, and views that begin at
// one of its tokens.
#pragma once

#include "ahead.h"
#include "dispatch.h"

namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE {

/// Tokens of a tile, from the bytes that each keeps in the cache: 48 (whole tiles of every op at
/// every level) or a part of it. From the shape alone, since sums over tokens follow the tiles.
inline int64_t boundary_tile_rows(int64_t bytes_per_token) {
  constexpr int64_t kCache = 320 * 1024;
  for (const int64_t rows : {48, 24}) {
    if (rows * bytes_per_token <= kCache) return rows;
  }
  return 12;
}

inline StreamsView view_from(const StreamsView& view, int64_t token, int64_t element_size) {
  return {static_cast<const char*>(view.data) + token * view.token_stride * element_size,
          view.token_stride, view.stream_stride};
}

inline RowsView view_from(const RowsView& view, int64_t token, int64_t element_size) {
  if (!view.data) return view;
  return {static_cast<const char*>(view.data) + token * view.token_stride * element_size,
          view.token_stride};
}

/// Adds tokens [first, first + tokens) to `ahead`, where they lie without gaps.
inline void add_rows(const RowsView& view, int64_t first, int64_t tokens, int64_t row, DType dtype,
                     Ahead* ahead) {
  const int64_t bytes = row * size_of(dtype);
  if (view.token_stride != row) return;
  ahead->add(static_cast<const char*>(view.data) + first * bytes, tokens * bytes);
}

inline void add_rows(const StreamsView& view, int64_t first, int64_t tokens, int64_t n_streams,
                     int64_t width, DType dtype, Ahead* ahead) {
  if (view.stream_stride != width && n_streams > 1) return;
  add_rows({view.data, view.token_stride}, first, tokens, n_streams * width, dtype, ahead);
}

/// Contiguous rows of `row` elements, from row `token`.
template <class T>
inline T* rows_from(void* data, int64_t token, int64_t row) {
  return data ? static_cast<T*>(data) + token * row : nullptr;
}

}  // namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE
