// stream_stats: sums over tokens from which the diagnostics of one site are made.
//
// With p = h_pre[t], q = h_post[t], r = h_res[t] and |v| the L2 norm of row v, the packed output
// holds, in this order, the sums over tokens t of
//
//   count                     1
//   h_pre, h_post [n]         p, q
//   h_res, h_res_square [n,n] r, r^2
//   read_share, write_share   |p[i]| / sum_i |p[i]|, and of q                                 [n]
//   read_entropy, write_entropy   -sum_i s log s of the two shares, in nats
//   read_signal_share [n]     |p[i]| |x_i| / sum_i |p[i]| |x_i|
//   write_signal_share [n]    q[i]^2 / sum_i q[i]^2
//   gram [n+1,n+1]            products of the rows of [x; y]
//   norm [n+1]                their norms
//   cosine [n,n]              gram[i,j] / (|x_i| |x_j|)
//   differential_energy       1 - n |mean_i x_i|^2 / sum_i |x_i|^2
//   curvature, curvature_count [n]                     angle between x_i[t-1] - x_i[t-2] and
//                                                      x_i[t] - x_i[t-1]; number of angles
//   position_curvature, position_curvature_count [n]   angle between x_i[t-1] and x_i[t]; number
//
// A ratio with a zero denominator counts as 0. Angles are in radians, stay within one sequence, and
// are counted where both vectors are non-zero and finite. Everything is computed in double.
#pragma once

#include "hyperstreams/common.h"
#include "hyperstreams/cuda.h"

namespace hyperstreams {

/// Number of packed values.
constexpr int64_t stream_stats_size(int64_t n) {
  return 3 * n * n + (n + 1) * (n + 1) + 11 * n + 5;
}

struct StreamStatsArgs {
  int64_t tokens;
  int64_t sequence;  // tokens per sequence, >= 1; token t is at position t % sequence
  int n_streams;
  int64_t width;
  DType dtype;      // of x; coefficients are float, or double where x is
  DType y_dtype;    // of y
  StreamsView x;    // [tokens, n, C]
  RowsView y;       // [tokens, C]; null data: zeros
  RowsView h_pre;   // [tokens, n], or [n] with token_stride 0; null data: zeros
  RowsView h_post;  // [tokens, n], or [n] with token_stride 0; null data: zeros
  RowsView h_res;   // [tokens, n, n], or [n, n] with token_stride 0; null data: the identity beside
                    // h_post, else zeros
  // Scratch [parts, stream_stats_size(n)]. parts: token_partitions(tokens) on the CPU,
  // plan_stream_stats(...).owners.partials on CUDA.
  double* partials;
  double* stats;  // out [stream_stats_size(n)]
};

namespace cpu {

/// Bytes moved per token: read (n + 1) C elements and the coefficients. Deterministic: summed
/// within token partitions, then over partitions in order.
void stream_stats(const StreamStatsArgs& args, ParallelFor parallel_for);

}  // namespace cpu

namespace cuda {

/// Queues stream_stats on the stream; float32, bfloat16 and float16 streams and y. Bytes as on the
/// CPU. Deterministic: summed within the token ranges of plan_stream_stats, then over them.
Status stream_stats(const StreamStatsArgs& args, Stream stream);

}  // namespace cuda
}  // namespace hyperstreams
