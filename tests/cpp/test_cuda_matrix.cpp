// Matrix fragments, bfloat16 pieces and asynchronous copies of the device layer, emulated.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "cuda_testing.h"

namespace hyperstreams::cuda::testing {
namespace {

/// Runs `kernel` as one warp, in both orders.
void run_warp(const std::function<void()>& kernel) {
  for (const auto order : {emulation::Order::kDescending, emulation::Order::kAscending}) {
    emulation::set_order(order);
    emulation::run_grid({1, 1, 1}, {kWarpThreads, 1, 1}, kernel);
  }
}

// Whole numbers, so that every product and sum is exact.
float a_at(int row, int k) { return static_cast<float>((row * 5 + k * 3) % 11 - 5); }
float b_at(int k, int column) { return static_cast<float>((k * 7 + column * 2) % 13 - 6); }

// Fragments as the PTX manual lays mma.m16n8k16 out, element by element.
TEST(CudaMatrix, MultiplyAddFollowsTheLayoutOfTheManual) {
  run_warp([] {
    const int group = lane() / 4, quad = lane() % 4;
    uint32_t a[4], b[2];
    for (int word = 0; word < 4; ++word) {
      float value[2];
      for (int i = 2 * word; i < 2 * word + 2; ++i) {
        const int row = i < 2 || (i >= 4 && i < 6) ? group : group + 8;
        value[i % 2] = a_at(row, quad * 2 + i % 2 + (i >= 4 ? 8 : 0));
      }
      a[word] = bfloat_pair(value[0], value[1]);
    }
    for (int word = 0; word < 2; ++word) {
      const int k = quad * 2 + 8 * word;
      b[word] = bfloat_pair(b_at(k, group), b_at(k + 1, group));
    }
    float sum[4] = {1, 2, 3, 4};
    multiply_add(sum, a, b);
    for (int i = 0; i < 4; ++i) {
      float expected = static_cast<float>(i + 1);
      for (int k = 0; k < 16; ++k) {
        expected += a_at(i < 2 ? group : group + 8, k) * b_at(k, quad * 2 + i % 2);
      }
      EXPECT_EQ(sum[i], expected) << "lane " << lane() << " element " << i;
    }
  });
}

// The same for mma.m16n8k8.
TEST(CudaMatrix, HalfMultiplyAddFollowsTheLayoutOfTheManual) {
  run_warp([] {
    const int group = lane() / 4, quad = lane() % 4, k = 2 * quad;
    float sum[4] = {1, 2, 3, 4};
    multiply_add_half(sum, bfloat_pair(a_at(group, k), a_at(group, k + 1)),
                      bfloat_pair(a_at(group + 8, k), a_at(group + 8, k + 1)),
                      bfloat_pair(b_at(k, group), b_at(k + 1, group)));
    for (int i = 0; i < 4; ++i) {
      float expected = static_cast<float>(i + 1);
      for (int inner = 0; inner < 8; ++inner) {
        expected += a_at(i < 2 ? group : group + 8, inner) * b_at(inner, quad * 2 + i % 2);
      }
      EXPECT_EQ(sum[i], expected) << "lane " << lane() << " element " << i;
    }
  });
}

TEST(CudaMatrix, MultiplyAddCutsTowardsZero) {
  run_warp([] {
    // 1 + 2^-24 + 2^-25 would round up to 1 + 2^-23.
    const uint32_t small = bfloat_pair(0x1p-24f, 0x1p-25f), one = bfloat_pair(1, 1);
    const bool first = lane() % 4 == 0;
    const uint32_t a[4] = {first ? small : 0, first ? small : 0, 0, 0}, b[2] = {one, one};
    float sum[4] = {1, -1, 1, -1};
    multiply_add(sum, a, b);
    EXPECT_EQ(sum[0], 1);
    EXPECT_EQ(sum[1], -1 + 0x1p-23f);
  });
}

TEST(CudaMatrix, PiecesAddUpExactly) {
  for (const float scale : {1.0f, 1e-30f, 1e30f}) {
    for (const float value : random_values<float>(200, 3)) {
      uint32_t pair[kFloatPieces];
      split(value * scale, -value * scale, pair);
      float first = 0, second = 0;
      for (int p = kFloatPieces - 1; p >= 0; --p) {
        first += bfloat_of<0>(pair[p]);
        second += bfloat_of<1>(pair[p]);
      }
      EXPECT_EQ(first, value * scale);
      EXPECT_EQ(second, -value * scale);
    }
  }
}

template <class S>
void check_packed() {
  Vector<S, 8> vector;
  const std::vector<float> values = random_values<float>(8, 4);
  for (int k = 0; k < 8; ++k) vector.element[k] = from_float<S>(values[k]);
  const Packed<S, 8> words = packed(vector);
  uint32_t pair[kPieces<S>][4];
  split(words, pair);
  for (int k = 0; k < 8; ++k) {
    EXPECT_EQ(words[k], to_float(vector.element[k]));
    float sum = 0;
    for (int p = kPieces<S> - 1; p >= 0; --p) {
      sum += k % 2 == 0 ? bfloat_of<0>(pair[p][k / 2]) : bfloat_of<1>(pair[p][k / 2]);
    }
    EXPECT_EQ(sum, words[k]);
  }
}

TEST(CudaMatrix, EveryStoredTypeIsItsPieces) {
  check_packed<float>();
  check_packed<BFloat16>();
  check_packed<Float16>();
}

TEST(CudaMatrix, CopiesOfNothingAreZeros) {
  alignas(16) static const uint4 from = {1, 2, 3, 4};
  run_warp([] {
    struct Storage {
      uint4 word[kWarpThreads][2];
    };
    auto& to = shared<Storage>().word[threadIdx.x];
    copy_async(&to[0], &from, true);
    copy_async(&to[1], &from + lane(), false);
    EXPECT_EQ(to[1].x, 0xffffffffu);
    end_copy_group();
    finish_copies<0>();
    EXPECT_EQ(to[0].w, 4u);
    EXPECT_EQ(to[1].x | to[1].w, 0u);
  });
}

TEST(CudaMatrix, CopiesArriveWithTheirGroupAndNotBefore) {
  alignas(16) static const uint4 from[2] = {{1, 2, 3, 4}, {5, 6, 7, 8}};
  run_warp([] {
    struct Storage {
      uint4 word[kWarpThreads][2];
    };
    auto& to = shared<Storage>().word[threadIdx.x];
    copy_async(&to[0], &from[0]);
    end_copy_group();
    copy_async(&to[1], &from[1]);
    end_copy_group();
    EXPECT_EQ(to[0].x, 0xffffffffu);
    finish_copies<1>();
    EXPECT_EQ(to[0].w, 4u);
    EXPECT_EQ(to[1].x, 0xffffffffu);
    finish_copies<0>();
    EXPECT_EQ(to[1].x, 5u);
  });
}

}  // namespace
}  // namespace hyperstreams::cuda::testing
