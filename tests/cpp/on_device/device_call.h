// Runs CUDA entry points on a GPU, for tests that hold their operands in host memory.
//
// hyperstreams_cuda_tests is made of the same tests/cpp/test_cuda_<op>.cpp that run on the
// emulation. In front of each stands on_device/<op>.h, with functions of the entry points' names:
// they copy the operands to the GPU, call the entry point there and copy the outputs back.
#pragma once

#include <functional>
#include <memory>

#include "hyperstreams/common.h"
#include "hyperstreams/cuda.h"

namespace hyperstreams::cuda::testing {

/// The operands of one call. Each is an allocation of its own, which ends where the operand ends
/// (so compute-sanitizer sees an access beyond it), and as far off a 16-byte boundary as the
/// host's. Null stays null.
class DeviceCall {
 public:
  DeviceCall();
  ~DeviceCall();
  DeviceCall(const DeviceCall&) = delete;
  DeviceCall& operator=(const DeviceCall&) = delete;

  /// What was there before, as an input or an output, is the same operand again.
  StreamsView input(const StreamsView& x, int64_t tokens, int n_streams, int64_t width,
                    DType dtype);
  RowsView input(const RowsView& rows, int64_t tokens, int64_t width, DType dtype);
  const void* input(const void* data, int64_t count, DType dtype);
  /// Poisoned before every run, copied to `data` after the first.
  void* output(void* data, int64_t count, DType dtype);
  /// Poisoned before every run; `data` says whether there is any.
  template <class T>
  T* scratch(T* data, int64_t count) {
    return static_cast<T*>(data ? allocate(data, count * sizeof(T), Kind::kScratch) : nullptr);
  }

  /// Runs `queue` and copies the outputs back. Then runs it again, HYPERSTREAMS_RERUNS times
  /// (otherwise 20) on two streams in turn and once more from a captured graph: the same bits, or
  /// the test fails. HYPERSTREAMS_LEAVE_UNINITIALISED: nothing is poisoned, for initcheck.
  Status run(const std::function<Status(Stream)>& queue);

 private:
  struct Operand;
  enum class Kind { kInput, kOutput, kScratch };
  void* allocate(const void* host, int64_t bytes, Kind kind);
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace hyperstreams::cuda::testing
