// read: streams -> branch input.
//
//   u[t, c] = sum_i h_pre[t, i] X[t, i, c]
//
// and its adjoint
//
//   grad_x[t, i, c]   = h_pre[t, i] grad_u[t, c]
//   grad_h_pre[t, i]  = sum_c grad_u[t, c] X[t, i, c]     (summed over t too when h_pre is static)
//
// Accumulation is float (double for double streams), i ascending, one rounding at the end.
// Outputs are contiguous, are written completely, and never alias inputs. n is 1..kMaxStreams,
// tokens >= 0, width >= 1.
#pragma once

#include "hyperstreams/common.h"
#include "hyperstreams/cuda.h"

namespace hyperstreams {

struct ReadArgs {
  int64_t tokens;
  int n_streams;
  int64_t width;
  DType dtype;     // of x and u
  StreamsView x;   // [tokens, n, C]
  RowsView h_pre;  // [tokens, n], or [n] with token_stride 0
  void* u;         // out [tokens, C]
};

struct ReadBackwardArgs {
  int64_t tokens;
  int n_streams;
  int64_t width;
  DType dtype;       // of x, grad_u and grad_x
  StreamsView x;     // [tokens, n, C]
  RowsView h_pre;    // [tokens, n], or [n] with token_stride 0
  RowsView grad_u;   // [tokens, C]
  void* grad_x;      // out [tokens, n, C]
  void* grad_h_pre;  // out [tokens, n], or [n] when h_pre is static
  // Scratch [parts, n] when h_pre is static, else unused. parts: token_partitions(tokens) on the
  // CPU, plan_read(...).backward.partials on CUDA.
  double* partials;
};

namespace cpu {

/// Bytes moved per token: read (n + 1) C elements and n coefficients.
void read_forward(const ReadArgs& args, ParallelFor parallel_for);

/// Bytes moved per token: (2n + 1) C elements and 2n coefficients. Deterministic: static
/// grad_h_pre is summed within token partitions, then over partitions in order.
void read_backward(const ReadBackwardArgs& args, ParallelFor parallel_for);

}  // namespace cpu

namespace cuda {

/// Queue read on the stream; float32, bfloat16 and float16 streams. Bytes and summation order as on
/// the CPU, except that static grad_h_pre is summed within the token ranges of plan_read.
Status read_forward(const ReadArgs& args, Stream stream);
Status read_backward(const ReadBackwardArgs& args, Stream stream);

}  // namespace cuda
}  // namespace hyperstreams
