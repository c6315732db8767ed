// project on CUDA, backward. With g = grad_logits, W = norm_weight * phi, and s[t] the derivative
// of the statistic:
//
//   grad_x[t, d]        = sum_k g[t, k] W[k, d] + grad_inv_rms[t] s[t] v[t, d]
//   grad_phi[k, d]      = norm_weight[d] sum_t g[t, k] v[t, d]
//   grad_norm_weight[d] = sum_k phi[k, d] sum_t g[t, k] v[t, d]
//
// A block of 4 warps owns 4 columns of channels (64 of a 2-byte type, 32 of float, each) and a
// range of tokens, which it walks 16 at a time: X is read once, two steps ahead into shared memory,
// grad_x written, and the columns' share of grad_phi stays in registers, to be written as one row
// of partial sums. Up to 32 logits, 16 in masked vectors. More of them: one kernel for grad_x, and
// one for every 32 logits of grad_phi, which reads X again. A last kernel adds the partial sums, a
// thread for every channel and logit, 32 logits at a time.
//   2 n C elements, g once per 256 (128) channels, from L2; per block 4 K n C bytes of phi and as
//   many of partial sums.
//
// Order of the sums and pieces: skinny_gradient.h. Deterministic: the token ranges depend on the
// shape alone, and their sums are added in order. All outputs are written completely.
// 28 kernels (3 dtypes; 1 to 4 tiles of 8 logits in whole vectors, 2 masked; apart: whole or
// masked, grad_x or grad_phi; the last sums).
#include <algorithm>

#include "add_rows.h"
#include "device/device.h"
#include "dispatch.h"
#include "hyperstreams/plan.h"
#include "hyperstreams/project.h"
#include "project_columns.h"
#include "skinny_gradient.h"

namespace hyperstreams::cuda {
namespace {

constexpr int kMaxTiles = 4;
// Groups of 16 tokens whose grad_x a warp holds while it walks over many logits.
constexpr int kHeldSteps = 2;
// Groups of 16 tokens in shared memory or on their way there: two are in flight while a warp
// computes.
constexpr int kStages = 3;
// Of the walk: three leave 168 registers to a thread, which are a few too few for the most sums
// beside streams of two pieces. Two leave 255.
template <class S, int kTiles>
constexpr int kBlocksPerMultiprocessor = kTiles == kMaxTiles && kPieces<S> == 2 ? 2 : 3;
constexpr int kHoldingBlocksPerMultiprocessor = 2;
constexpr int kFinishChannels = 32;
constexpr int kFinishRows = 32;  // at most

struct BackwardWork {
  int64_t columns, tokens_per_part;
  float* partials;  // [parts, K, columns * kChannels]
  int64_t parts;
};

/// Shared memory of a walk, without W when it makes no grad_x.
template <class S, int kTiles, bool kGradX>
struct BackwardStorage {
  StagedTokens x[kStages];
  GradientFragments<S, kTiles> gradients[2];
  WeightFragments<S, kTiles> weights;
};
template <class S, int kTiles>
struct BackwardStorage<S, kTiles, false> {
  StagedTokens x[kStages];
  GradientFragments<S, kTiles> gradients[2];
};

/// grad_phi of the logits from blockIdx.y / parts * 8 kTiles on; kGradX: grad_x too, all logits
/// being among them.
template <class S, int kTiles, bool kWhole, bool kGradX>
__global__ void __launch_bounds__(kGradientThreads,
                                  blocks_at_once(kBlocksPerMultiprocessor<S, kTiles>))
    project_backward_kernel(const ProjectBackwardArgs args, const BackwardWork work) {
  using Traits = GradientTraits<S, kTiles>;
  auto& storage = *dynamic_shared<BackwardStorage<S, kTiles, kGradX>>();
  const int64_t tokens = args.shape.tokens, n_logits = args.shape.n_logits;
  const int64_t part = kGradX ? blockIdx.y : blockIdx.y % work.parts;
  const int64_t first_logit = kGradX ? 0 : blockIdx.y / work.parts * Traits::kLogits;
  const auto first_column = [] {
    return opaque(int64_t{blockIdx.x}) * kGradientWarps + threadIdx.x / kWarpThreads;
  };
  const int64_t begin = part * work.tokens_per_part;
  const int64_t end = begin + work.tokens_per_part < tokens ? begin + work.tokens_per_part : tokens;
  const float* g = static_cast<const float*>(args.grad_logits);

  const ColumnOfX<S, kWhole> rows(args, first_column());
#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage) {
    rows.copy(begin + stage * kStepTokens, end, storage.x[stage]);
    end_copy_group();
  }
  GradientLoader<S, kTiles> loader;
  FactorLoader factors;
  loader.load(g, n_logits, begin, end, first_logit);
  if (kGradX) factors.load(args, begin, end);
  if constexpr (kGradX) {
    storage.weights.fill(first_logit, [&](int64_t logit, float (&to)[Traits::kVector]) {
      rows.load_weight(logit, to);
    });
  }
  loader.store(storage.gradients[0]);
  if (kGradX) factors.store(args, storage.gradients[0].factor);
  loader.load(g, n_logits, begin + kStepTokens, end, first_logit);
  if (kGradX) factors.load(args, begin + kStepTokens, end);

  WeightGradient<S, kTiles> grad_weight;
  int now = 0, stage = 0;
#pragma unroll 1
  for (int64_t t = begin; t < end; t += kStepTokens) {
    finish_copies<kStages - 2>();
    block_barrier();  // the gradients have come, and all are done with the others
    const auto& gradients = storage.gradients[now];
    now = 1 - now;
    loader.store(storage.gradients[now]);
    if (kGradX) factors.store(args, storage.gradients[now].factor);
    loader.load(g, n_logits, t + 2 * kStepTokens, end, first_logit);
    if (kGradX) factors.load(args, t + 2 * kStepTokens, end);
    // Where the group before this one lay.
    rows.copy(t + (kStages - 1) * kStepTokens, end,
              storage.x[stage == 0 ? kStages - 1 : stage - 1]);
    end_copy_group();
    StepTokens<S> x;
    storage.x[stage].take(x);
    stage = stage == kStages - 1 ? 0 : stage + 1;
    if constexpr (kGradX) {
      StepTokens<S> grad;
      multiply_grad_v(storage.weights, gradients, [&](int i, int channel, float a, float b) {
        set_grad(x, gradients.factor[lane() % 4 * kLaneTokens + i], i, channel, a, b, grad);
      });
      rows.store(t, end, grad);
    }
    grad_weight.add(x, gradients);
  }
  const int64_t column = first_column();
  if (column >= work.columns) return;
  const int64_t stride = work.columns * Traits::kChannels;
  grad_weight.take([&](int k, const float (&vector)[Traits::kVector]) {
    const int64_t logit = first_logit + k;
    if (logit >= n_logits) return;
    float* to = work.partials + (part * n_logits + logit) * stride + column * Traits::kChannels +
                lane() / 4 * Traits::kVector;
    store_floats<true>(to, Traits::kVector, vector);
  });
}

template <class S>
struct GradXStorage {
  GradientFragments<S, kMaxTiles> gradients[kHeldSteps];
  WeightFragments<S, kMaxTiles> weights;
};

/// grad_x for more logits than one block takes at once: the block walks over them and holds the
/// sums of 16 kHeldSteps tokens.
template <class S, bool kWhole>
__global__ void __launch_bounds__(kGradientThreads, kHoldingBlocksPerMultiprocessor)
    project_grad_x_kernel(const ProjectBackwardArgs args, int64_t column_blocks) {
  using Traits = GradientTraits<S, kMaxTiles>;
  auto& storage = shared<GradXStorage<S>>();
  const int64_t tokens = args.shape.tokens;
  const int64_t column = blockIdx.x % column_blocks * kGradientWarps + threadIdx.x / kWarpThreads;
  const int64_t first = blockIdx.x / column_blocks * (kHeldSteps * kStepTokens);
  const ColumnOfX<S, kWhole> rows(args, column);
  float sum[kHeldSteps][kLaneTokens][Traits::kVector] = {};
#pragma unroll 1
  for (int64_t logit = 0; logit < args.shape.n_logits; logit += Traits::kLogits) {
    if (logit > 0) block_barrier();  // all are done with the fragments
    storage.weights.fill(logit,
                         [&](int64_t k, float (&to)[Traits::kVector]) { rows.load_weight(k, to); });
#pragma unroll
    for (int held = 0; held < kHeldSteps; ++held) {
      GradientLoader<S, kMaxTiles> loader;
      FactorLoader factors;
      loader.load(static_cast<const float*>(args.grad_logits), args.shape.n_logits,
                  first + held * kStepTokens, tokens, logit);
      factors.load(args, first + held * kStepTokens, tokens);
      loader.store(storage.gradients[held]);
      factors.store(args, storage.gradients[held].factor);
    }
    block_barrier();
#pragma unroll
    for (int held = 0; held < kHeldSteps; ++held) {
      multiply_grad_v(storage.weights, storage.gradients[held],
                      [&](int i, int channel, float a, float b) {
                        sum[held][i][channel] += a;
                        sum[held][i][channel + 1] += b;
                      });
    }
  }
#pragma unroll
  for (int held = 0; held < kHeldSteps; ++held) {
    StepTokens<S> x, grad;
    rows.load(first + held * kStepTokens, tokens, x);
#pragma unroll
    for (int i = 0; i < kLaneTokens; ++i) {
      const float factor = storage.gradients[held].factor[lane() % 4 * kLaneTokens + i];
#pragma unroll
      for (int k = 0; k < Traits::kVector; k += 2) {
        set_grad(x, factor, i, k, sum[held][i][k], sum[held][i][k + 1], grad);
      }
    }
    rows.store(first + held * kStepTokens, tokens, grad);
  }
}

struct FinishStorage {
  float sum[kFinishRows][kFinishChannels];
};

/// A block owns 32 channels; thread (x, y) adds the parts of channel x for every blockDim.y-th
/// logit from y on.
__global__ void __launch_bounds__(kFinishChannels* kFinishRows)
    project_backward_finish_kernel(const ProjectBackwardArgs args, const BackwardWork work,
                                   int64_t channels_per_column) {
  auto& storage = shared<FinishStorage>();
  const ProjectShape& shape = args.shape;
  const int64_t features = shape.n_streams * shape.width;
  const int64_t d = int64_t{blockIdx.x} * kFinishChannels + threadIdx.x;
  const int64_t stride = work.columns * channels_per_column;
  const int64_t at = d / shape.width * (stride / shape.n_streams) + d % shape.width;
  const float* phi = static_cast<const float*>(args.phi);
  const float* norm_weight = static_cast<const float*>(args.norm_weight);
  float grad_norm = 0;
  if (d < features) {
    const float scale = norm_weight ? norm_weight[d] : 1.0f;
    for (int64_t k = threadIdx.y; k < shape.n_logits; k += blockDim.y) {
      const float sum =
          add_rows<16>(work.partials + k * stride + at, work.parts, shape.n_logits * stride);
      static_cast<float*>(args.grad_phi)[k * features + d] = norm_weight ? sum * scale : sum;
      if (norm_weight) grad_norm = fmaf(sum, phi[k * features + d], grad_norm);
    }
  }
  if (!norm_weight) return;
  storage.sum[threadIdx.y][threadIdx.x] = grad_norm;
  block_barrier();
  if (threadIdx.y > 0 || d >= features) return;
  for (int y = 1; y < static_cast<int>(blockDim.y); ++y) grad_norm += storage.sum[y][threadIdx.x];
  static_cast<float*>(args.grad_norm_weight)[d] = grad_norm;
}

template <class S, int kTiles, bool kGradX>
LaunchShape walk(const ProjectBackwardPlan& plan) {
  LaunchShape shape = plan.walk;
  shape.shared_bytes = sizeof(BackwardStorage<S, kTiles, kGradX>);
  return shape;
}

/// grad_x and grad_phi in one walk.
template <class S>
Status launch_together(const ProjectBackwardArgs& args, const ProjectBackwardPlan& plan,
                       const BackwardWork& work, Stream stream) {
  const auto go = [&](auto tiles, auto whole) {
    constexpr int kTiles = decltype(tiles)::value;
    return launch(project_backward_kernel<S, kTiles, decltype(whole)::value, true>,
                  walk<S, kTiles, true>(plan), stream, args, work);
  };
  if (!plan.whole_vectors) return go(std::integral_constant<int, 2>{}, std::false_type{});
  return dispatch_few_streams(plan.tiles, [&](auto tiles) {
    if constexpr (decltype(tiles)::value > 0) {
      return go(tiles, std::true_type{});
    } else {
      return Status::kOk;
    }
  });
}

template <class S>
Status launch_apart(const ProjectBackwardArgs& args, const ProjectBackwardPlan& plan,
                    const BackwardWork& work, Stream stream) {
  return dispatch_bool(plan.whole_vectors, [&](auto whole) {
    constexpr bool kWhole = decltype(whole)::value;
    const Status status =
        launch(project_grad_x_kernel<S, kWhole>, plan.grad_x, stream, args, plan.walk.grid_x);
    if (status != Status::kOk) return status;
    return launch(project_backward_kernel<S, kMaxTiles, kWhole, false>,
                  walk<S, kMaxTiles, false>(plan), stream, args, work);
  });
}

}  // namespace

Status project_backward(const ProjectBackwardArgs& args, Stream stream) {
  const ProjectShape& shape = args.shape;
  if (shape.dtype == DType::kFloat64) return Status::kUnsupportedDType;
  const int n = shape.n_streams;
  const StreamsView grad_x{args.grad_x, n * shape.width, shape.width};
  const int64_t alignment = std::min({row_alignment(args.x, shape.tokens, n, shape.dtype),
                                      row_alignment(grad_x, shape.tokens, n, shape.dtype),
                                      row_alignment({args.phi, 0}, 1, DType::kFloat32),
                                      row_alignment({args.norm_weight, 0}, 1, DType::kFloat32)});
  const ProjectBackwardPlan plan = plan_project_backward(shape, alignment);
  const BackwardWork work{plan.columns, plan.tokens_per_part, static_cast<float*>(args.workspace),
                          plan.parts};
  Status status = Status::kOk;
  if (shape.tokens > 0) {
    status = dispatch_dtype(shape.dtype, [&](auto dtype) {
      using S = typename decltype(dtype)::type;
      return plan.together ? launch_together<S>(args, plan, work, stream)
                           : launch_apart<S>(args, plan, work, stream);
    });
  }
  if (status != Status::kOk) return status;
  return launch(project_backward_finish_kernel, plan.finish, stream, args, work,
                int64_t{plan.channels});
}

}  // namespace hyperstreams::cuda
