#include "device_call.h"

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "kernels/cuda/emulation/grid.h"

// The threads of a GPU run in no order that one could set.
void hyperstreams::cuda::emulation::set_order(Order) {}

namespace hyperstreams::cuda::testing {
namespace {

/// An error of the runtime leaves the device unusable for this process.
void require(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  const ::testing::TestInfo* test = ::testing::UnitTest::GetInstance()->current_test_info();
  std::fprintf(stderr, "%s.%s: %s: %s\n", test ? test->test_suite_name() : "",
               test ? test->name() : "", what, cudaGetErrorString(error));
  std::fflush(nullptr);
  std::_Exit(EXIT_FAILURE);
}

int reruns() {
  const char* text = std::getenv("HYPERSTREAMS_RERUNS");
  return text ? std::atoi(text) : 20;
}

int64_t element_bytes(DType dtype) {
  return dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2;
}

/// Two streams that do not wait for each other or for the default one.
cudaStream_t stream(int which) {
  static cudaStream_t streams[2] = {};
  cudaStream_t& found = streams[which % 2];
  if (!found) require(cudaStreamCreateWithFlags(&found, cudaStreamNonBlocking), "stream");
  return found;
}

}  // namespace

struct DeviceCall::Operand {
  void* base;
  char* data;
  const void* host;
  int64_t bytes;
  bool is_written, is_output;
};

struct DeviceCall::State {
  std::vector<Operand> operands;

  void poison() const {
    if (std::getenv("HYPERSTREAMS_LEAVE_UNINITIALISED")) return;
    for (const Operand& operand : operands) {
      if (!operand.is_written) continue;
      require(cudaMemset(operand.data, 0xff, operand.bytes), "poison");
    }
    require(cudaDeviceSynchronize(), "poison");
  }

  void copy_back() const {
    for (const Operand& operand : operands) {
      if (!operand.is_output) continue;
      require(cudaMemcpy(const_cast<void*>(operand.host), operand.data, operand.bytes,
                         cudaMemcpyDeviceToHost),
              "copy from the device");
    }
  }

  void expect_same_bits(const char* how) const {
    for (const Operand& operand : operands) {
      if (!operand.is_output) continue;
      std::vector<char> again(operand.bytes);
      require(cudaMemcpy(again.data(), operand.data, operand.bytes, cudaMemcpyDeviceToHost),
              "copy from the device");
      EXPECT_EQ(std::memcmp(again.data(), operand.host, operand.bytes), 0) << how;
    }
  }
};

DeviceCall::DeviceCall() : state_(new State) {}

DeviceCall::~DeviceCall() {
  for (const Operand& operand : state_->operands) require(cudaFree(operand.base), "free");
}

void* DeviceCall::allocate(const void* host, int64_t bytes, Kind kind) {
  const int64_t shift = static_cast<int64_t>(reinterpret_cast<uintptr_t>(host) % 16);
  Operand operand = {nullptr, nullptr, host, bytes, kind != Kind::kInput, kind == Kind::kOutput};
  require(cudaMalloc(&operand.base, shift + (bytes > 0 ? bytes : 1)), "allocation");
  operand.data = static_cast<char*>(operand.base) + shift;
  if (kind == Kind::kInput) {
    require(cudaMemcpy(operand.data, host, bytes, cudaMemcpyHostToDevice), "copy to the device");
  }
  state_->operands.push_back(operand);
  return operand.data;
}

const void* DeviceCall::input(const void* data, int64_t count, DType dtype) {
  if (!data) return nullptr;
  const int64_t bytes = count * element_bytes(dtype);
  for (const Operand& known : state_->operands) {
    if (known.host == data && bytes > 0 && known.bytes >= bytes) return known.data;
  }
  return allocate(data, bytes, Kind::kInput);
}

StreamsView DeviceCall::input(const StreamsView& x, int64_t tokens, int n_streams, int64_t width,
                              DType dtype) {
  const int64_t count =
      tokens == 0 ? 0 : (tokens - 1) * x.token_stride + (n_streams - 1) * x.stream_stride + width;
  return {input(x.data, count, dtype), x.token_stride, x.stream_stride};
}

RowsView DeviceCall::input(const RowsView& rows, int64_t tokens, int64_t width, DType dtype) {
  const int64_t count = tokens == 0 ? 0 : (tokens - 1) * rows.token_stride + width;
  return {input(rows.data, count, dtype), rows.token_stride};
}

void* DeviceCall::output(void* data, int64_t count, DType dtype) {
  return data ? allocate(data, count * element_bytes(dtype), Kind::kOutput) : nullptr;
}

Status DeviceCall::run(const std::function<Status(Stream)>& queue) {
  state_->poison();
  const Status status = queue(stream(0));
  require(cudaDeviceSynchronize(), "first run");
  if (status != Status::kOk) return status;
  state_->copy_back();
  for (int k = 0, count = reruns(); k < count; ++k) {
    state_->poison();
    EXPECT_EQ(queue(stream(k)), Status::kOk);
    require(cudaDeviceSynchronize(), "rerun");
    state_->expect_same_bits("a rerun has other bits");
  }
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replay = nullptr;
  require(cudaStreamBeginCapture(stream(1), cudaStreamCaptureModeGlobal), "capture");
  EXPECT_EQ(queue(stream(1)), Status::kOk);
  require(cudaStreamEndCapture(stream(1), &graph), "capture");
  require(cudaGraphInstantiate(&replay, graph, 0), "graph");
  state_->poison();
  require(cudaGraphLaunch(replay, stream(0)), "replay");
  require(cudaDeviceSynchronize(), "replay");
  state_->expect_same_bits("a graph's replay has other bits");
  require(cudaGraphExecDestroy(replay), "graph");
  require(cudaGraphDestroy(graph), "graph");
  return status;
}

}  // namespace hyperstreams::cuda::testing
