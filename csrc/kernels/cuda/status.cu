#include "device/device.h"

namespace hyperstreams::cuda {

const char* status_message(Status status) {
  switch (status) {
    case Status::kOk:
      return "success";
    case Status::kUnsupportedDType:
      return "this dtype has no CUDA kernel (float32, bfloat16 and float16 have)";
    case Status::kGridTooLarge:
      return "the shape needs more blocks than a CUDA grid holds";
  }
  return runtime_message(status);
}

int block_shared_limit() { return device_shared_limit(); }

}  // namespace hyperstreams::cuda
