// The device layer as the emulation implements it, and what the emulation catches.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <stdexcept>

#include "kernel_testing.h"
#include "kernels/cuda/device/device.h"

namespace hyperstreams::cuda {
namespace {

constexpr int kThreads = 96;

/// Runs `kernel` as one block of kThreads threads, in both orders.
void run_block(const std::function<void()>& kernel) {
  for (const auto order : {emulation::Order::kAscending, emulation::Order::kDescending}) {
    emulation::set_order(order);
    emulation::run_grid({1, 1, 1}, {kThreads, 1, 1}, kernel);
  }
  emulation::set_order(emulation::Order::kAscending);
}

std::string failure_of(const std::function<void()>& kernel) {
  try {
    run_block(kernel);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

TEST(CudaDevice, EveryThreadOfTheGridRunsOnce) {
  std::vector<int> visits(3 * 2 * 8 * 4, 0);
  emulation::run_grid({3, 2, 1}, {8, 4, 1}, [&] {
    const unsigned block = blockIdx.y * gridDim.x + blockIdx.x;
    ++visits[(block * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x];
  });
  EXPECT_EQ(visits, std::vector<int>(visits.size(), 1));
}

TEST(CudaDevice, ShufflesExchangeWithinTheWarp) {
  run_block([] {
    const int rank = static_cast<int>(threadIdx.x);
    EXPECT_EQ(warp_shuffle(rank, (lane() + 3) % 32), rank / 32 * 32 + (rank + 3) % 32);
    EXPECT_EQ(warp_shuffle_xor(double{0.5} + rank, 5), 0.5 + (rank ^ 5));
    EXPECT_EQ(warp_any(rank == 40), rank / 32 == 1);
  });
}

TEST(CudaDevice, BlockSumAddsInTheDefinedOrder) {
  const std::vector<float> values = testing::random_values<float>(kThreads, 5);
  float expected = 0;
  for (int warp = 0; warp < kThreads / 32; ++warp) {
    float tree[64] = {};
    for (int l = 0; l < 32; ++l) tree[l] = values[warp * 32 + l];
    for (int d = 1; d < 32; d *= 2) {
      for (int l = 0; l + d < 32; ++l) tree[l] += tree[l + d];
    }
    expected = warp == 0 ? tree[0] : expected + tree[0];
  }
  run_block([&] {
    const float value = values[threadIdx.x];
    auto& storage = shared<BlockSumStorage<float, kThreads>>();
    const float first = block_sum<kThreads>(value, storage);
    block_barrier();
    const float second = block_sum<kThreads>(value, storage);
    if (threadIdx.x == 0) {
      EXPECT_EQ(first, expected);
      EXPECT_EQ(second, expected);
    }
  });
}

template <int kCount>
void check_warp_sums() {
  run_block([] {
    float value[kCount];
    for (int k = 0; k < kCount; ++k) value[k] = static_cast<float>(k * 1000 + lane());
    // 31 * 32 / 2 = 496; whole numbers are summed exactly in any order.
    EXPECT_EQ(warp_sums(value), 32.0f * static_cast<float>(lane() * kCount / 32 * 1000) + 496);
  });
}

TEST(CudaDevice, WarpSumsGiveEveryLaneOneSum) {
  check_warp_sums<1>();
  check_warp_sums<4>();
  check_warp_sums<32>();
}

TEST(CudaDevice, SharedMemoryStartsPoisonedInEveryBlock) {
  emulation::run_grid({2, 1, 1}, {kThreads, 1, 1}, [] {
    float& value = shared<float>();
    EXPECT_TRUE(threadIdx.x != 0 || std::isnan(value));
    block_barrier();
    if (threadIdx.x == 0) value = 1;
    block_barrier();
    EXPECT_EQ(value, 1);
  });
}

void exchange_kernel(float* out) {
  float* const dynamic = dynamic_shared<float>();
  float& other = shared<float>();
  EXPECT_TRUE(std::isnan(dynamic[threadIdx.x]));
  block_barrier();
  if (threadIdx.x == 0) other = -1;
  dynamic[threadIdx.x] = static_cast<float>(1000 * blockIdx.x + threadIdx.x);
  block_barrier();
  out[blockIdx.x * kThreads + threadIdx.x] = dynamic[kThreads - 1 - threadIdx.x];
  EXPECT_EQ(other, -1);
}

TEST(CudaDevice, DynamicSharedMemoryIsTheLaunchsOwn) {
  std::vector<float> out(2 * kThreads);
  const LaunchShape shape{2, 1, kThreads, 1, kThreads * static_cast<int>(sizeof(float))};
  EXPECT_EQ(launch(exchange_kernel, shape, nullptr, out.data()), Status::kOk);
  for (int k = 0; k < 2 * kThreads; ++k) {
    EXPECT_EQ(out[k], static_cast<float>(1000 * (k / kThreads) + kThreads - 1 - k % kThreads));
  }
}

TEST(CudaDevice, MissingBarrierShowsInOneOfTheOrders) {
  bool seen = false;
  run_block([&] {
    float& value = shared<float>();
    if (threadIdx.x == 40) value = 2;
    if (threadIdx.x == 50 && !(value == 2)) seen = true;
  });
  EXPECT_TRUE(seen);
}

TEST(CudaDevice, DivergentMeetingsAreReported) {
  const std::string absent = failure_of([] {
    if (threadIdx.x < 95) block_barrier();
  });
  EXPECT_NE(absent.find("1 threads ended"), std::string::npos) << absent;
  const std::string elsewhere = failure_of([] {
    if (threadIdx.x < 32) {
      block_barrier();
    } else {
      block_barrier();
    }
  });
  EXPECT_NE(elsewhere.find("barrier divergence"), std::string::npos) << elsewhere;
  const std::string lane_absent = failure_of([] {
    if (lane() != 7) warp_shuffle_xor(1.0f, 1);
  });
  EXPECT_NE(lane_absent.find("in a warp shuffle"), std::string::npos) << lane_absent;
  run_block([] { block_barrier(); });  // the emulation still works after a failure
}

TEST(CudaDevice, MisalignedWholeVectorIsReported) {
  alignas(16) static float memory[8] = {};
  EXPECT_EQ(failure_of([] { load_vector<true>(memory + 4, 4); }), "");
  EXPECT_EQ(failure_of([] { load_vector<true>(memory + 1, 4); }), "misaligned 16-byte access");
}

template <class S>
void check_vector_tail() {
  constexpr int kSize = Vector<S>::kSize;
  for (int count = 0; count <= kSize + 1; ++count) {
    testing::Guarded<S> from(kSize + 1), to(kSize + 1);
    for (int k = 0; k <= kSize; ++k) from[k] = from_float<S>(1.0f + static_cast<float>(k));
    const std::vector<S> untouched = to.copy();
    run_block(
        [&] { store_vector<false>(to.data(), count, load_vector<false>(from.data(), count)); });
    for (int k = 0; k <= kSize; ++k) {
      const bool moved = k < count && k < kSize;
      EXPECT_EQ(std::memcmp(&to[k], moved ? &from[k] : &untouched[k], sizeof(S)), 0);
    }
    EXPECT_TRUE(to.intact());
  }
}

TEST(CudaDevice, MaskedVectorTouchesTheRowAlone) {
  check_vector_tail<float>();
  check_vector_tail<BFloat16>();
  check_vector_tail<Float16>();
}

/// Every value between two neighbours rounds to the nearer one, and the middle to the even one.
template <class S>
void check_rounding(int exponent_all_ones) {
  for (uint32_t bits = 0; bits + 1 < static_cast<uint32_t>(exponent_all_ones); ++bits) {
    const S low{static_cast<uint16_t>(bits)}, high{static_cast<uint16_t>(bits + 1)};
    const float a = to_float(low), b = to_float(high);
    ASSERT_LT(a, b);
    ASSERT_EQ(from_float<S>(a).bits, low.bits);
    ASSERT_EQ(from_float<S>(-a).bits, low.bits | 0x8000);
    const float middle = static_cast<float>((double{a} + b) / 2);
    ASSERT_EQ(from_float<S>(middle).bits, bits % 2 == 0 ? low.bits : high.bits);
    ASSERT_EQ(from_float<S>(std::nextafterf(middle, a)).bits, low.bits);
    ASSERT_EQ(from_float<S>(std::nextafterf(middle, b)).bits, high.bits);
  }
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(from_float<S>(infinity).bits, exponent_all_ones);
  EXPECT_EQ(to_float(S{static_cast<uint16_t>(exponent_all_ones)}), infinity);
  EXPECT_TRUE(std::isnan(to_float(from_float<S>(std::nanf("")))));
}

TEST(CudaDevice, HalfPrecisionRoundsToNearestEven) {
  check_rounding<BFloat16>(0x7f80);
  check_rounding<Float16>(0x7c00);
  EXPECT_EQ(from_float<Float16>(65519.0f).bits, 0x7bff);
  EXPECT_EQ(from_float<Float16>(65520.0f).bits, 0x7c00);
}

}  // namespace
}  // namespace hyperstreams::cuda
