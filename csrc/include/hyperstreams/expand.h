// expand: hidden rows -> streams.
//
//   X[t, i, c] = h[t, c] scale[i, c] + bias[i, c]      (absent: scale 1, bias 0)
//
// and its adjoint
//
//   grad_h[t, c]      = sum_i scale[i, c] grad_x[t, i, c]
//   grad_scale[i, c]  = sum_t h[t, c] grad_x[t, i, c]
//   grad_bias[i, c]   = sum_t grad_x[t, i, c]
//
// scale and bias are float (double for double rows), as is accumulation: one fused multiply-add per
// element, i ascending, one rounding at the end. Outputs are contiguous, are written completely,
// and never alias inputs. n is 1..kMaxStreams, tokens >= 0, width >= 1.
#pragma once

#include "hyperstreams/common.h"
#include "hyperstreams/cuda.h"

namespace hyperstreams {

struct ExpandArgs {
  int64_t tokens;
  int n_streams;
  int64_t width;
  DType dtype;        // of h and x
  RowsView h;         // [tokens, C]
  const void* scale;  // [n, C], or null
  const void* bias;   // [n, C], or null
  void* x;            // out [tokens, n, C]
};

struct ExpandBackwardArgs {
  int64_t tokens;
  int n_streams;
  int64_t width;
  DType dtype;         // of grad_x, h and grad_h
  StreamsView grad_x;  // [tokens, n, C]
  RowsView h;          // [tokens, C]
  const void* scale;   // [n, C], or null
  void* grad_h;        // out [tokens, C]
  void* grad_scale;    // out [n, C]; null exactly when scale is
  void* grad_bias;     // out [n, C], or null when it is not wanted
  // Scratch [parts, 2, n, C] in the accumulate dtype, unused when neither grad_scale nor grad_bias
  // is wanted. parts: row_partitions(tokens, n C) on the CPU, plan_expand(...).sums.parts on CUDA.
  void* partials;
};

namespace cpu {

/// Bytes moved per token: (n + 1) C elements.
void expand_forward(const ExpandArgs& args, ParallelFor parallel_for);

/// Bytes moved per token: (n + 2) C elements. Deterministic: grad_scale and grad_bias are summed
/// within token partitions, then over partitions in order.
void expand_backward(const ExpandBackwardArgs& args, ParallelFor parallel_for);

}  // namespace cpu

namespace cuda {

/// Queue expand on the stream; float32, bfloat16 and float16 rows. Bytes as on the CPU, and n C
/// elements more for grad_scale and grad_bias; both are summed within the parts of plan_expand.
Status expand_forward(const ExpandArgs& args, Stream stream);
Status expand_backward(const ExpandBackwardArgs& args, Stream stream);

}  // namespace cuda
}  // namespace hyperstreams
