// mix_write: mix the streams and write the branch output to them.
//
//   X'[t, j, c] = sum_i h_res[t, j, i] X[t, i, c] + h_post[t, j] (y[t, c] + bias[c])
//
// (without h_res the mix is the identity) and its adjoint, with G = grad_out:
//
//   grad_x[t, i, c]       = sum_j h_res[t, j, i] G[t, j, c]
//   grad_y[t, c]          = sum_j h_post[t, j] G[t, j, c]
//   grad_h_res[t, j, i]   = sum_c G[t, j, c] X[t, i, c]            (summed over t too when static)
//   grad_h_post[t, j]     = sum_c G[t, j, c] (y[t, c] + bias[c])   (summed over t too when static)
//   grad_bias[c]          = sum_t sum_j h_post[t, j] G[t, j, c]
//
// Accumulation is float (double for double streams) by fused multiply-adds, i = 0..n-1 and then y,
// one rounding at the end; y may have another dtype than X and is converted first. Outputs are
// contiguous, are written completely, and never alias inputs. n is 1..kMaxStreams, tokens >= 0,
// width >= 1.
#pragma once

#include "hyperstreams/common.h"
#include "hyperstreams/cuda.h"

namespace hyperstreams {

struct MixWriteArgs {
  int64_t tokens;
  int n_streams;
  int64_t width;
  DType dtype;       // of x and x_out
  DType y_dtype;     // of y
  StreamsView x;     // [tokens, n, C]
  RowsView y;        // [tokens, C]
  RowsView h_res;    // [tokens, n, n], or [n, n] with token_stride 0; null data: identity
  RowsView h_post;   // [tokens, n], or [n] with token_stride 0
  const void* bias;  // [C] in the accumulate dtype, or null
  void* x_out;       // out [tokens, n, C]
};

struct MixWriteBackwardArgs {
  int64_t tokens;
  int n_streams;
  int64_t width;
  DType dtype;           // of x, grad_out and grad_x
  DType y_dtype;         // of y and grad_y
  StreamsView grad_out;  // [tokens, n, C]
  StreamsView x;         // [tokens, n, C]
  RowsView y;            // [tokens, C]
  RowsView h_res;        // [tokens, n, n], or [n, n] with token_stride 0; null data: identity
  RowsView h_post;       // [tokens, n], or [n] with token_stride 0
  const void* bias;      // [C] in the accumulate dtype, or null
  void* grad_x;          // out [tokens, n, C]
  void* grad_y;          // out [tokens, C]
  void* grad_h_res;      // out [tokens, n, n], or [n, n] when static; unused without h_res
  void* grad_h_post;     // out [tokens, n], or [n] when static
  void* grad_bias;       // out [C], unused without bias
  // Scratch [parts, n * n + n], and [parts, C] in the accumulate dtype, unused without bias. parts:
  // row_partitions(tokens, width) on the CPU; on CUDA plan_mix_write(...).backward.partials and
  // .bias.parts.
  double* partials;
  void* bias_partials;
};

namespace cpu {

/// Bytes moved per token: read (n + 1) C elements and n * n + n coefficients, write n C elements.
void mix_write_forward(const MixWriteArgs& args, ParallelFor parallel_for);

/// Bytes moved per token: read (2n + 1) C, write (n + 1) C elements. Deterministic: static
/// gradients and grad_bias are summed within token partitions, then over partitions in order.
void mix_write_backward(const MixWriteBackwardArgs& args, ParallelFor parallel_for);

}  // namespace cpu

namespace cuda {

/// Queue mix_write on the stream; float32, bfloat16 and float16 streams and y. Bytes as on the CPU
/// (grad_bias: n C elements more; n > 4: see the kernels), sums over tokens within the ranges of
/// plan_mix_write.
Status mix_write_forward(const MixWriteArgs& args, Stream stream);
Status mix_write_backward(const MixWriteBackwardArgs& args, Stream stream);

}  // namespace cuda
}  // namespace hyperstreams
