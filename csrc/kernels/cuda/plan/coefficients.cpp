// Launch plan of coefficients; what each number means stands in the contract.
#include <algorithm>

#include "arithmetic.h"
#include "hyperstreams/plan.h"

namespace hyperstreams::cuda {
namespace {

constexpr int kWarp = 32;
// Rows that sums over tokens leave at most: enough blocks for the largest devices.
constexpr int64_t kMaxPartials = 1024;
// Scratch takes at most this many bytes, or else serves one block.
constexpr int64_t kMaxScratchBytes = int64_t{64} << 20;

}  // namespace

CoefficientsPlan plan_coefficients(int64_t tokens, int64_t scratch_per_token) {
  const int64_t warps = ceil_div(tokens, kWarp);
  int64_t most = kMaxGridX;
  if (scratch_per_token > 0) {
    most = std::max<int64_t>(kMaxScratchBytes / (scratch_per_token * kWarp * 4), 1);
  }
  CoefficientsPlan plan;
  plan.forward = {std::min(warps, most), 1, kWarp, 1};
  plan.backward = {std::min({warps, most, kMaxPartials}), 1, kWarp, 1};
  plan.partials = plan.backward.grid_x;
  plan.scratch = plan.forward.grid_x * kWarp * scratch_per_token;
  return plan;
}

}  // namespace hyperstreams::cuda
