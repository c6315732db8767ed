// Vocabulary shared by all contract headers. No torch, no CUDA.
//
// Streams are X [tokens, n, C]: C (the width) is contiguous, tokens and streams have any stride, in
// elements. Coefficients are float, or double where the streams are double.
#pragma once

#include <cstdint>

namespace hyperstreams {

/// Element type of streams. Values are part of the interface of `_info`.
enum class DType : int { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2, kFloat64 = 3 };

constexpr int kMaxStreams = 16;

/// Read-only streams: element (t, i, c) is data[t * token_stride + i * stream_stride + c].
struct StreamsView {
  const void* data;
  int64_t token_stride;
  int64_t stream_stride;
};

/// Read-only rows of `width` or fewer contiguous elements: row t begins at data + t * token_stride.
/// A token_stride of 0 is one row shared by all tokens (static coefficients).
struct RowsView {
  const void* data;
  int64_t token_stride;
};

/// Runs body(begin, end, context) over a partition of [0, tasks) into ranges of at least `grain`
/// tasks, on any threads, and returns when all are done. Results must not depend on the partition.
using ParallelFor = void (*)(int64_t tasks, int64_t grain,
                             void (*body)(int64_t begin, int64_t end, void* context),
                             void* context);

/// Number of partial sums of a reduction over tokens. It depends on the token count alone, so that
/// parameter gradients have the same bits at any thread count.
constexpr int64_t token_partitions(int64_t tokens) {
  const int64_t parts = (tokens + 63) / 64;
  return parts < 64 ? parts : 64;
}

/// The same for sums that are rows of `row` elements: the partial rows take at most about 32 MiB as
/// floats, or else two rows.
constexpr int64_t row_partitions(int64_t tokens, int64_t row) {
  const int64_t parts = token_partitions(tokens);
  const int64_t bound = (int64_t{1} << 23) / row < 2 ? 2 : (int64_t{1} << 23) / row;
  return parts < bound ? parts : bound;
}

/// First token of partition `part`.
constexpr int64_t partition_begin(int64_t tokens, int64_t parts, int64_t part) {
  return tokens / parts * part + (tokens % parts) * part / parts;
}

}  // namespace hyperstreams
