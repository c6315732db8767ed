// The sums of boundary's backward over slabs of channels and over parts of tokens:
//
//   grad_h_res, grad_h_post, grad_read = sum over slabs, and over tokens where they are static
//   grad_phi = norm_weight S, grad_norm_weight = sum_k S phi with S = sum over parts
//
// sums_kernel: a thread has 4 neighbours of the tokens' sums and reads them from every slab, up to
// 16 loads under way; (slabs + 1) (n n + 2n) floats per token. phi_kernel: a thread has one of S;
// (parts + 2) K D floats.
//
// Deterministic: slabs, parts, tokens and logits are added in ascending order, tokens of one block
// in double.
#include "boundary_sums.h"

#include "boundary_kernels.h"
#include "plan/gradients.h"

namespace hyperstreams::cuda {
namespace {

constexpr int kPhiThreads = 1024;

/// Block: 32 channels x a thread for every logit. Parts ascending; then, for grad_norm_weight,
/// logits.
__global__ void __launch_bounds__(kPhiThreads)
    phi_kernel(const __grid_constant__ BoundaryPhiArgs args) {
  constexpr int kAtOnce = 8;  // loads under way
  struct Storage {
    float norm[kPhiThreads / kWarpThreads][kWarpThreads];
  };
  auto& storage = shared<Storage>();
  const int64_t d = int64_t{blockIdx.x} * kWarpThreads + threadIdx.x, k = threadIdx.y;
  const int64_t place = k * args.features + d, count = args.n_logits * args.features;
  if (d < args.features) {
    float sum = 0;
    for (int64_t part = 0; part < args.parts; part += kAtOnce) {
      float value[kAtOnce];
#pragma unroll
      for (int p = 0; p < kAtOnce; ++p) {
        value[p] = part + p < args.parts ? args.partials[(part + p) * count + place] : 0;
      }
#pragma unroll
      for (int p = 0; p < kAtOnce; ++p) sum += value[p];
    }
    storage.norm[k][threadIdx.x] = sum * args.phi[place];
    args.grad_phi[place] = args.norm_weight ? sum * args.norm_weight[d] : sum;
  }
  if (!args.norm_weight) return;
  block_barrier();
  if (k > 0 || d >= args.features) return;
  float norm = storage.norm[0][threadIdx.x];
  for (int y = 1; y < args.n_logits; ++y) norm += storage.norm[y][threadIdx.x];
  args.grad_norm_weight[d] = norm;
}

/// sum += the vectors of `slabs` slabs, `stride` apart, kAtOnce loads under way, then fewer.
template <bool kWhole, int kAtOnce = 16>
__device__ __forceinline__ void add_slabs(const float* from, int64_t slabs, int64_t stride,
                                          int rest, float (&sum)[kSumVector]) {
  for (; slabs >= kAtOnce; slabs -= kAtOnce) {
    float value[kAtOnce][kSumVector];
#pragma unroll
    for (int s = 0; s < kAtOnce; ++s) {
      load_floats<kWhole>(from, rest, value[s]);
      from += stride;
    }
#pragma unroll
    for (int s = 0; s < kAtOnce; ++s) {
#pragma unroll
      for (int k = 0; k < kSumVector; ++k) sum[k] += value[s][k];
    }
  }
  if constexpr (kAtOnce > 1) add_slabs<kWhole, kAtOnce / 2>(from, slabs, stride, rest, sum);
}

/// kWhole: the tokens' sums of a slab are whole vectors. 2 blocks: registers for all loads.
/// `at_once`: tokens that the threads have.
template <bool kWhole>
__global__ void __launch_bounds__(kSumThreads, 2)
    sums_kernel(const __grid_constant__ BoundarySumsArgs args, int at_once) {
  struct Storage {
    float sum[kSumThreads * kSumVector];
  };
  auto& storage = shared<Storage>();
  const int n = args.n, count = n * n + 2 * n, rank = static_cast<int>(threadIdx.x);
  const int64_t begin = blockIdx.x * args.tokens_per_block, stride = args.tokens * count;
  const int64_t left = args.tokens - begin, slabs = args.slabs;
  const int64_t end = left < args.tokens_per_block ? args.tokens : begin + args.tokens_per_block;
  double of_tokens = 0;  // of the first `count` threads, a sum each
  for (int64_t first = begin; first < end; first += at_once) {
    const int tokens = static_cast<int>(end - first < at_once ? end - first : at_once);
    const int place = rank * kSumVector, rest = tokens * count - place;
    float sum[kSumVector] = {};
    if (rest > 0) add_slabs<kWhole>(args.sums + first * count + place, slabs, stride, rest, sum);
#pragma unroll
    for (int e = 0; e < kSumVector; ++e) {
      if (e >= rest) continue;
      const int64_t t = first + (place + e) / count;
      const int k = (place + e) % count, j = k / (n + 2), i = k % (n + 2);
      if (i < n) {
        if (args.grad_h_res) args.grad_h_res[(t * n + j) * n + i] = sum[e];
      } else if (i == n) {
        if (args.grad_h_post) args.grad_h_post[t * n + j] = sum[e];
      } else if (args.grad_read) {
        args.grad_read[t * n + j] = sum[e];
      }
      storage.sum[place + e] = sum[e];
    }
    if (!args.partials) continue;
    block_barrier();
    for (int t = 0; t < tokens && rank < count; ++t) of_tokens += storage.sum[t * count + rank];
    block_barrier();
  }
  if (!args.partials || rank >= count) return;
  const int j = rank / (n + 2), i = rank % (n + 2);
  const int to = i < n ? j * n + i : n * n + (i - n) * n + j;
  args.partials[blockIdx.x * count + to] = of_tokens;
}

}  // namespace

Status boundary_sums(const BoundarySumsArgs& args, const LaunchShape& blocks, Stream stream) {
  const bool whole = args.tokens * boundary_sums(args.n) % kSumVector == 0;
  return launch(whole ? sums_kernel<true> : sums_kernel<false>, blocks, stream, args,
                sum_tokens(args.n));
}

Status boundary_phi(const BoundaryPhiArgs& args, const LaunchShape& blocks, Stream stream) {
  return launch(phi_kernel, blocks, stream, args);
}

}  // namespace hyperstreams::cuda
