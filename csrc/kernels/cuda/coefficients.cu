// coefficients on CUDA, forward and backward: the activation stage and the map, from the source
// that the CPU runs in lanes (hyperstreams/maps).
//
//   inside:   a[k] = factor act(alpha z[k] + b[k]) + offset      z = logits * inv_rms
//   outside:  a[k] = factor (alpha act(z[k]) + b[k]) + offset
//   h_pre = a[0, n), h_post = a[n, 2n), h_res = map(a[2n, K))
//
// All is latency: a token is a few hundred bytes. Up to n = 4 a block takes 32 tokens
// (coefficient_tile.h): a lane per logit for the activation, a thread or, for sinkhorn, 4 lanes per
// token for the map. Above, a block is one warp with a token per thread; a map evaluates the
// activation at every read and has its arrays in shared memory, element k of all threads together.
// What a map must keep (Sinkhorn's scales of every round) is in shared memory, or in scratch where
// it does not fit.
//   Forward: K + 1 floats read and 2n + n n written per token; backward 2K + 2n + n n + 2, and
//   above n = 4 the map's gradient once more through the cache.
// Backward evaluates the activation and the map again and takes the exact adjoint of the finite
// algorithm.
//
// Deterministic: a token's outputs do not depend on the tokens beside it. grad_alpha and grad_bias:
// each block adds its tokens in an order that their number fixes, into one row of partials [2, K],
// the terms of alpha by logit; a second kernel adds the rows, and the logits of each alpha.
// The kernels are templates over the map and n = 1, 2, 3, 4, 8 or any (permutation, spectral: every
// n): coefficient_kernels.h, compiled by map_<name>.cu. One more here.
#include "hyperstreams/coefficients.h"

#include "coefficient_maps.h"
#include "device/device.h"
#include "hyperstreams/plan.h"
#include "map_dispatch.h"

namespace hyperstreams::cuda {
namespace {

constexpr int kParameterThreads = 512;

/// Block b of 2 + mix_groups + K: alpha of group b, then the biases. Thread r adds numbers r,
/// r + 512, ... of its columns, row by row, then the block its threads.
__global__ void __launch_bounds__(kParameterThreads)
    parameter_gradients_kernel(const __grid_constant__ CoefficientSettings settings,
                               const double* partials,  // [parts, 2, K]
                               int parts, int logits,
                               float* grad_alpha,   // [2 + mix_groups]
                               float* grad_bias) {  // [K]
  const int groups = 2 + settings.mix_groups;
  const int group = static_cast<int>(blockIdx.x);
  // The columns [begin, end) of a row of partials.
  int begin = logits + group - groups, end = begin + 1;
  if (group < groups) {
    begin = 0;
    end = settings.n_streams;
    for (int g = 1; g <= group; ++g) {
      begin = end;
      end += g == 1 ? settings.n_streams : settings.mix_group_sizes[g - 2];
    }
  }
  const int columns = end - begin;
  double sum = 0;
#pragma unroll 8
  for (int i = static_cast<int>(threadIdx.x); i < parts * columns; i += kParameterThreads) {
    sum += partials[int64_t{i / columns} * 2 * logits + begin + i % columns];
  }
  sum = block_sum<kParameterThreads>(sum, shared<BlockSumStorage<double, kParameterThreads>>());
  if (threadIdx.x != 0) return;
  (group < groups ? grad_alpha[group] : grad_bias[group - groups]) = static_cast<float>(sum);
}

}  // namespace

Status coefficient_parameters(const CoefficientsBackwardArgs& args, int64_t parts, Stream stream) {
  const CoefficientSettings& s = args.settings;
  const int logits = 2 * s.n_streams + mix_logit_count(s.map, s.map_settings, s.n_streams);
  const LaunchShape shape{2 + s.mix_groups + logits, 1, kParameterThreads, 1};
  return launch(parameter_gradients_kernel, shape, stream, s, args.partials,
                static_cast<int>(parts), logits, static_cast<float*>(args.grad_alpha),
                static_cast<float*>(args.grad_bias));
}

Status coefficients_forward(const CoefficientsArgs& args, Stream stream) {
  if (args.dtype != DType::kFloat32) return Status::kUnsupportedDType;
  if (args.tokens == 0) return Status::kOk;
  const CoefficientsPlan plan = plan_coefficients(args.tokens, args.settings);
  return dispatch_map(args.settings.map, [&](auto map) {
    return map_forward<typename decltype(map)::type>(args, LogitParts{}, plan, stream);
  });
}

Status coefficients_backward(const CoefficientsBackwardArgs& args, Stream stream) {
  if (args.dtype != DType::kFloat32) return Status::kUnsupportedDType;
  const CoefficientSettings& s = args.settings;
  const CoefficientsPlan plan = plan_coefficients(args.tokens, s);
  if (args.tokens > 0) {
    const Status status = dispatch_map(s.map, [&](auto map) {
      return map_backward<typename decltype(map)::type>(args, ReadAdjoint{}, plan, stream);
    });
    if (status != Status::kOk) return status;
  }
  return coefficient_parameters(args, plan.partials, stream);
}

}  // namespace hyperstreams::cuda
