// Helpers of the kernel benchmarks: one thread, random data, the instruction sets as an argument.
#pragma once

#include <benchmark/benchmark.h>

#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "hyperstreams/common.h"
#include "hyperstreams/isa.h"

namespace hyperstreams::benchmarks {

constexpr int kStreams = 4;

inline void serial(int64_t tasks, int64_t, void (*body)(int64_t, int64_t, void*), void* context) {
  body(0, tasks, context);
}

constexpr int64_t element_size(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }

inline std::vector<float> random_values(int64_t size, uint32_t seed) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  std::vector<float> values(static_cast<size_t>(size));
  for (float& value : values) value = uniform(generator);
  return values;
}

/// Streams or hidden states in float32 or bfloat16.
class Elements {
 public:
  Elements(DType dtype, int64_t size, uint32_t seed)
      : bytes_(static_cast<size_t>(size * element_size(dtype))) {
    const std::vector<float> values = random_values(size, seed);
    const int64_t width = element_size(dtype);
    for (int64_t k = 0; k < size; ++k) {
      uint32_t bits;
      std::memcpy(&bits, &values[k], sizeof bits);
      if (dtype == DType::kBFloat16) bits >>= 16;  // little endian: the low bytes come first
      std::memcpy(bytes_.data() + k * width, &bits, width);
    }
  }
  void* data() { return bytes_.data(); }

 private:
  std::vector<unsigned char> bytes_;
};

/// Arguments of every benchmark, in this order.
struct Shape {
  int64_t tokens, width;
  DType dtype;

  explicit Shape(const benchmark::State& state)
      : tokens(state.range(0)), width(state.range(1)), dtype(static_cast<DType>(state.range(2))) {}
  int64_t streams() const { return tokens * kStreams * width; }
  int64_t hidden() const { return tokens * width; }
  /// Bytes of so many units of traffic.
  int64_t units(int64_t count) const { return count * hidden() * element_size(dtype); }
  StreamsView view(Elements& x) const { return {x.data(), kStreams * width, width}; }
};

/// Runs `call` at the level that argument `index` names, and reports bytes and operations a second.
template <class Call>
void measure(benchmark::State& state, int index, int64_t bytes, int64_t flops, Call call) {
  const auto level = static_cast<cpu::IsaLevel>(state.range(index));
  if (level > cpu::detected_isa_level()) {
    state.SkipWithError("this processor does not run it");
    return;
  }
  const cpu::IsaLevel before = cpu::isa_level();
  cpu::set_isa_cap(level);
  state.SetLabel(cpu::isa_name(level));
  for (auto _ : state) {
    call();
    benchmark::ClobberMemory();
  }
  cpu::set_isa_cap(before);
  state.SetBytesProcessed(state.iterations() * bytes);
  if (flops > 0) {
    state.counters["flops"] = benchmark::Counter(static_cast<double>(flops),
                                                 benchmark::Counter::kIsIterationInvariantRate);
  }
}

/// Tokens x width, float32 and bfloat16, at every level that this processor runs.
inline void shapes(benchmark::internal::Benchmark* made) {
  made->ArgNames({"tokens", "width", "dtype", "isa"});
  for (const auto& [tokens, width] : {std::pair<int64_t, int64_t>{4096, 384}, {256, 96}}) {
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      for (int level = 0; level <= static_cast<int>(cpu::detected_isa_level()); ++level) {
        made->Args({tokens, width, static_cast<int64_t>(dtype), level});
      }
    }
  }
}

}  // namespace hyperstreams::benchmarks
