// What mix_write's forward and backward share: the rows y + bias, and prefetching.
#pragma once

#include "ahead.h"
#include "rows.h"

namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE {

/// Asks for the cache line that begins at channel c, if one does, in each of n rows. A token's rows
/// are short and the processor's own prefetching begins anew in each, so a walk over the channels
/// of a token asks for those of the next.
template <class S>
HYPERSTREAMS_INLINE void prefetch_channels(const S* rows, int64_t stride, int n, int64_t c) {
  if (c * static_cast<int64_t>(sizeof(S)) % kCacheLine != 0) return;
  for (int i = 0; i < n; ++i) __builtin_prefetch(rows + i * stride + c);
}

/// The rows y + bias of one task in the accumulate dtype.
template <class T, class Args>
class BranchRows {
 public:
  explicit BranchRows(const Args& args)
      : args_(args),
        direct_(is_stored_as<T>(args.y_dtype) && !args.bias),
        row_(direct_ ? 0 : args.width) {}

  const T* row(int64_t t) {
    const int64_t offset = t * args_.y.token_stride;
    if (direct_) return static_cast<const T*>(args_.y.data) + offset;
    load_row(args_.y_dtype, args_.y.data, offset, args_.width, row_.data());
    if (args_.bias) add_row(static_cast<const T*>(args_.bias), args_.width, row_.data());
    return row_.data();
  }

 private:
  const Args& args_;
  bool direct_;
  Scratch<T> row_;
};

}  // namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE
