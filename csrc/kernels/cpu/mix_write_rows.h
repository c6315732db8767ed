// The rows y + bias of mix_write, forward and backward.
#pragma once

#include "rows.h"

namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE {

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
