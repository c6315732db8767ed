// Helpers of the tests of emulated CUDA kernels: stored types, and strided operands filled with
// values that do not depend on their layout.
#pragma once

#include <cmath>
#include <type_traits>

#include "kernel_testing.h"
#include "kernels/cuda/device/device.h"

namespace hyperstreams::cuda::testing {

using hyperstreams::testing::Guarded;
using hyperstreams::testing::random_values;

template <class S>
constexpr DType kDType = sizeof(S) == 4                ? DType::kFloat32
                         : std::is_same_v<S, BFloat16> ? DType::kBFloat16
                                                       : DType::kFloat16;

/// The emulated device has so many bytes of shared memory for a block while this lives; a GPU keeps
/// its own.
class LimitedSharedMemory {
 public:
  explicit LimitedSharedMemory(int bytes) : before_(emulation::shared_limit) {
    emulation::shared_limit = bytes;
  }
  ~LimitedSharedMemory() { emulation::shared_limit = before_; }
  LimitedSharedMemory(const LimitedSharedMemory&) = delete;
  LimitedSharedMemory& operator=(const LimitedSharedMemory&) = delete;

 private:
  int before_;
};

/// Largest relative error of one rounding to S.
template <class S>
constexpr double kHalfUlp = sizeof(S) == 4                ? 6e-8
                            : std::is_same_v<S, BFloat16> ? 1. / 256
                                                          : 1. / 2048;

template <class S>
std::vector<S> stored(const std::vector<float>& values) {
  std::vector<S> out;
  for (const float value : values) out.push_back(from_float<S>(value));
  return out;
}

template <class S>
bool same_bytes(const std::vector<S>& a, const std::vector<S>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(S)) == 0);
}

/// Streams [T, n, C] (or rows, n = 1) of random values: `offset` elements off a 16-byte boundary,
/// every row `padding` elements longer than C, the rest NaN. Element (t, i, c) is the same in any
/// layout and whatever the number of tokens.
template <class S>
class Operand {
 public:
  Operand(int64_t tokens, int n, int64_t width, uint32_t seed, int64_t offset = 0,
          int64_t padding = 0)
      : offset_(offset),
        stream_stride_(width + padding),
        token_stride_(n * stream_stride_ + padding),
        data_(stored<S>(std::vector<float>(offset + tokens * token_stride_, NAN))) {
    const std::vector<float> values = random_values<float>(tokens * n * width, seed);
    for (int64_t row = 0; row < tokens * n; ++row) {
      for (int64_t c = 0; c < width; ++c) {
        data_[index(row / n, static_cast<int>(row % n), c)] =
            from_float<S>(values[row * width + c]);
      }
    }
  }

  float at(int64_t t, int i, int64_t c) const { return to_float(data_[index(t, i, c)]); }
  StreamsView streams() const { return {data_.data() + offset_, token_stride_, stream_stride_}; }
  RowsView rows() const { return {data_.data() + offset_, token_stride_}; }

 private:
  int64_t index(int64_t t, int i, int64_t c) const {
    return offset_ + t * token_stride_ + i * stream_stride_ + c;
  }
  int64_t offset_, stream_stride_, token_stride_;
  std::vector<S> data_;
};

/// Contiguous output `offset` elements off a 16-byte boundary.
template <class S>
class Output {
 public:
  explicit Output(int64_t size, int64_t offset = 0) : offset_(offset), all_(size + offset) {}
  S* data() { return all_.data() + offset_; }
  bool intact() const { return all_.intact(); }
  std::vector<S> values() {
    const std::vector<S> all = all_.copy();
    return std::vector<S>(all.begin() + offset_, all.end());
  }

 private:
  int64_t offset_;
  Guarded<S> all_;
};

/// Coefficients [T, count], or [count] when static, in rows of count + 1.
class Coefficients {
 public:
  Coefficients(int64_t tokens, int count, bool is_static, uint32_t seed)
      : stride_(is_static ? 0 : count + 1),
        values_(random_values<float>((is_static ? 1 : tokens) * (count + 1), seed)) {}
  float at(int64_t t, int k) const { return values_[t * stride_ + k]; }
  RowsView rows() const { return {values_.data(), stride_}; }

 private:
  int64_t stride_;
  std::vector<float> values_;
};

/// Within one rounding to S of `expected`, and 2e-6.
template <class S>
void expect_rounded(S actual, double expected) {
  EXPECT_NEAR(to_float(actual), expected, std::abs(expected) * kHalfUlp<S> + 2e-6);
}

/// Runs `run` in both orders of threads; the results must have the same bits. Returns the first.
template <class Run>
auto run_in_both_orders(const Run& run) {
  emulation::set_order(emulation::Order::kDescending);
  const auto other = run();
  emulation::set_order(emulation::Order::kAscending);
  const auto out = run();
  EXPECT_TRUE(same_bits(out, other)) << "depends on the order of threads";
  return out;
}

}  // namespace hyperstreams::cuda::testing
