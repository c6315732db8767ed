#include "arithmetic.h"
#include "hyperstreams/plan.h"

namespace hyperstreams::cuda {
namespace {

/// Largest power of two, at most 16, that divides every bit pattern merged into `bits`.
int64_t lowest_bit(uint64_t bits) { return static_cast<int64_t>((bits | 16) & (~(bits | 16) + 1)); }

uint64_t stride_bits(int64_t extent, int64_t stride, DType dtype) {
  return extent > 1 ? static_cast<uint64_t>(stride * element_bytes(dtype)) : 0;
}

}  // namespace

int64_t row_alignment(const StreamsView& x, int64_t tokens, int n_streams, DType dtype) {
  return lowest_bit(reinterpret_cast<uintptr_t>(x.data) |
                    stride_bits(tokens, x.token_stride, dtype) |
                    stride_bits(n_streams, x.stream_stride, dtype));
}

int64_t row_alignment(const RowsView& rows, int64_t tokens, DType dtype) {
  return lowest_bit(reinterpret_cast<uintptr_t>(rows.data) |
                    stride_bits(tokens, rows.token_stride, dtype));
}

}  // namespace hyperstreams::cuda
