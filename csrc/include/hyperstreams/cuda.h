// Vocabulary of the CUDA contract: streams of work and status codes. No CUDA headers.
#pragma once

struct CUstream_st;

namespace hyperstreams::cuda {

/// What the CUDA runtime calls cudaStream_t. Kernels run in its order, on the current device.
using Stream = CUstream_st*;

/// Outcome of queueing an op. Positive values are CUDA error codes.
enum class Status : int { kOk = 0, kUnsupportedDType = -1, kGridTooLarge = -2 };

/// One line for people.
const char* status_message(Status status);

}  // namespace hyperstreams::cuda
