// The device and stream of a CUDA op.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include "../tensors.h"
#include "hyperstreams/cuda.h"

// Only CUDA builds of torch have it; weak, so that this library loads, and registers its ops, under
// a CPU build too.
#pragma weak aoti_torch_get_current_cuda_stream

namespace hyperstreams::torch_binding {

/// Makes the device of `x` current while it lives, and holds torch's current stream there.
class OnDevice {
 public:
  OnDevice(const Tensor& x, const char* op) : index_(cuda_index(x, op)), guard_(index_) {
    STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream != nullptr,
                    "hyperstreams: CUDA ops need a CUDA build of torch");
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(index_, &stream));
    stream_ = static_cast<cuda::Stream>(stream);
  }

  cuda::Stream stream() const { return stream_; }

  /// Checks that `other` is on this device too.
  void require(const Tensor& other, const char* op, const char* argument) const {
    STD_TORCH_CHECK(other.is_cuda() && other.get_device_index() == index_, op, ": ", argument,
                    " must be on cuda:", index_, ", like the streams");
  }

 private:
  static int32_t cuda_index(const Tensor& x, const char* op) {
    STD_TORCH_CHECK(x.is_cuda(), op, ": streams must be on a CUDA device");
    return x.get_device_index();
  }

  int32_t index_;
  torch::stable::accelerator::DeviceGuard guard_;
  cuda::Stream stream_ = nullptr;
};

inline void check_status(cuda::Status status, const char* op) {
  STD_TORCH_CHECK(status == cuda::Status::kOk, op, ": ", cuda::status_message(status));
}

}  // namespace hyperstreams::torch_binding
