// What the tests of launch plans share.
#pragma once

#include <gtest/gtest.h>

#include "hyperstreams/plan.h"
#include "kernel_testing.h"

namespace hyperstreams::cuda::testing {

constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};

inline void check_limits(const LaunchShape& shape, int most_threads = 256) {
  EXPECT_GE(shape.grid_x, 1);
  EXPECT_GE(shape.grid_y, 1);
  EXPECT_LE(shape.grid_x, kMaxGridX);
  EXPECT_LE(shape.grid_y, kMaxGridY);
  const int threads = shape.block_x * shape.block_y;
  EXPECT_GE(threads, 1);
  EXPECT_LE(threads, most_threads);
}

inline CoefficientSettings map_settings(int n, MapKind map, const MapSettings& settings = {}) {
  CoefficientSettings s = {};
  s.n_streams = n;
  s.map = map;
  s.map_settings = settings;
  return s;
}

}  // namespace hyperstreams::cuda::testing
