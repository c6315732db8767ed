// Helpers of the kernel tests: threads, random data, buffers with sentinels around them.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "hyperstreams/common.h"
#include "hyperstreams/isa.h"

namespace hyperstreams::testing {

inline void serial(int64_t tasks, int64_t, void (*body)(int64_t, int64_t, void*), void* context) {
  body(0, tasks, context);
}

/// Three threads with uneven ranges.
inline void threaded(int64_t tasks, int64_t, void (*body)(int64_t, int64_t, void*), void* context) {
  const int64_t first = tasks / 5, second = tasks / 2;
  std::thread a([&] { body(0, first, context); });
  std::thread b([&] { body(first, second, context); });
  body(second, tasks, context);
  a.join();
  b.join();
}

/// A buffer of T between guard zones; everything is poisoned with NaN bytes at first.
template <class T>
class Guarded {
 public:
  explicit Guarded(int64_t size) : size_(size), bytes_((2 * kGuard + size) * sizeof(T), 0xff) {}
  T* data() { return reinterpret_cast<T*>(bytes_.data()) + kGuard; }
  T& operator[](int64_t k) { return data()[k]; }
  int64_t size() const { return size_; }
  std::vector<T> copy() { return std::vector<T>(data(), data() + size_); }

  /// True when no byte outside the buffer was written.
  bool intact() const {
    const size_t guard = kGuard * sizeof(T);
    for (size_t k = 0; k < guard; ++k) {
      if (bytes_[k] != 0xff || bytes_[bytes_.size() - 1 - k] != 0xff) return false;
    }
    return true;
  }

 private:
  static constexpr int64_t kGuard = 64;
  int64_t size_;
  std::vector<unsigned char> bytes_;
};

template <class T>
std::vector<T> random_values(int64_t size, uint32_t seed) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<double> uniform(-1.0, 1.0);
  std::vector<T> values(static_cast<size_t>(size));
  for (T& value : values) value = static_cast<T>(uniform(generator));
  return values;
}

/// Levels that this processor runs.
inline std::vector<cpu::IsaLevel> isa_levels() {
  std::vector<cpu::IsaLevel> levels;
  for (int k = 0; k <= static_cast<int>(cpu::detected_isa_level()); ++k) {
    levels.push_back(static_cast<cpu::IsaLevel>(k));
  }
  return levels;
}

/// Runs a test body at one ISA level and restores the previous cap.
class AtIsaLevel {
 public:
  explicit AtIsaLevel(cpu::IsaLevel level) : previous_(cpu::isa_level()) {
    cpu::set_isa_cap(level);
  }
  ~AtIsaLevel() { cpu::set_isa_cap(previous_); }

 private:
  cpu::IsaLevel previous_;
};

}  // namespace hyperstreams::testing
