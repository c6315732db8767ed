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

/// Bytes of shared memory that a block can have on the current device: 227 KiB with compute
/// capability 9.0 and 10.0, 163 with 8.0, 99 with 8.6, 8.9 and 12.0.
int block_shared_limit();

}  // namespace hyperstreams::cuda
