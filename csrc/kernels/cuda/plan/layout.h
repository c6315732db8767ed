// How scratch is divided.
#pragma once

#include "arithmetic.h"

namespace hyperstreams::cuda {

/// Hands out floats, every part on a 16-byte boundary.
class ScratchLayout {
 public:
  int64_t take(int64_t floats) {
    const int64_t at = size_;
    size_ += ceil_div(floats, 4) * 4;
    return at;
  }
  int64_t size() const { return size_; }

 private:
  int64_t size_ = 0;
};

}  // namespace hyperstreams::cuda
