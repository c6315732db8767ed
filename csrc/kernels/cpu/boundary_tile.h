// What boundary's forward and backward share: the size of a tile of tokens, and views that begin at
// one of its tokens.
#pragma once

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

/// Contiguous rows of `row` elements, from row `token`.
template <class T>
inline T* rows_from(void* data, int64_t token, int64_t row) {
  return data ? static_cast<T*>(data) + token * row : nullptr;
}

}  // namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE
