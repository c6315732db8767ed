// Launch plan of coefficients; what each number means stands in the contract.
#include <algorithm>

#include "arithmetic.h"
#include "hyperstreams/maps/scalar.h"
#include "hyperstreams/plan.h"

namespace hyperstreams::cuda {
namespace {

constexpr int kWarp = 32;  // tokens of a block
constexpr int kTileThreads = 256;
// Rows that sums over tokens leave at most: enough blocks for the largest devices.
constexpr int64_t kMaxPartials = 1024;
// What every architecture from sm_80 on gives a block, but for what kernels have without asking.
constexpr int64_t kMaxSharedBytes = 88 << 10;
// Scratch takes at most this many bytes, or else serves one block.
constexpr int64_t kMaxScratchBytes = int64_t{64} << 20;

CoefficientsPass plan_pass(int64_t blocks, int n_streams, const MapSpace& space) {
  constexpr int64_t kBytes = kWarp * sizeof(float);  // of one number of every token
  CoefficientsPass pass;
  pass.keeps_in_shared = (int64_t{space.arrays} + space.kept) * kBytes <= kMaxSharedBytes;
  const int64_t in_shared = space.arrays + (pass.keeps_in_shared ? space.kept : 0);
  const int64_t in_scratch = pass.keeps_in_shared ? 0 : space.kept;
  if (in_scratch > 0) {
    blocks = std::min(blocks, std::max<int64_t>(kMaxScratchBytes / (in_scratch * kBytes), 1));
  }
  const int threads = n_streams <= maps::kMaxRegisterStreams ? kTileThreads : kWarp;
  pass.launch = {blocks, 1, threads, 1, static_cast<int>(in_shared * kBytes)};
  pass.arrays = space.arrays;
  pass.kept = space.kept;
  pass.scratch = blocks * kWarp * in_scratch;
  return pass;
}

}  // namespace

CoefficientsPlan plan_coefficients(int64_t tokens, const CoefficientSettings& s) {
  const int64_t blocks = ceil_div(tokens, kWarp);
  const int n = s.n_streams;
  CoefficientsPlan plan;
  plan.forward =
      plan_pass(std::min(blocks, kMaxGridX), n, mix_forward_space(s.map, s.map_settings, n));
  MapSpace backward = mix_backward_space(s.map, s.map_settings, n);
  // Sums per stream.
  if (n > maps::kMaxRegisterStreams) backward.arrays += n;
  plan.backward = plan_pass(std::min(blocks, kMaxPartials), n, backward);
  plan.partials = plan.backward.launch.grid_x;
  return plan;
}

}  // namespace hyperstreams::cuda
