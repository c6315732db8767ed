// project on CUDA, backward. With g = grad_logits, W = norm_weight * phi, and s[t] the derivative
// of the statistic:
//
//   grad_x[t, d]        = sum_k g[t, k] W[k, d] + grad_inv_rms[t] s[t] v[t, d]
//   grad_phi[k, d]      = norm_weight[d] sum_t g[t, k] v[t, d]
//   grad_norm_weight[d] = sum_k phi[k, d] sum_t g[t, k] v[t, d]
//
// A block of 4 warps owns 4 columns of channels (64 of a 2-byte type, 32 of float, each) and a
// range of tokens, which it walks 16 at a time: X is read once, grad_x written, and the columns'
// share of grad_phi stays in registers, to be written as one row of partial sums. Up to 32 logits.
// More of them: one kernel for grad_x, and one for every 32 logits of grad_phi, which reads X
// again. A last kernel adds the partial sums, a thread for every logit and channel in turn.
//   2 n C elements, g once per 256 (128) channels, from L2; per block 4 K n C bytes of phi and as
//   many of partial sums.
//
// Order of the sums and pieces: skinny_gradient.h. Deterministic: the token ranges depend on the
// shape alone, and their sums are added in order. All outputs are written completely.
// 28 kernels (3 dtypes; 1 to 4 tiles of 8 logits in whole vectors, 4 masked; apart: whole or
// masked, grad_x or grad_phi; the last sums).
#include <algorithm>

#include "device/device.h"
#include "dispatch.h"
#include "hyperstreams/plan.h"
#include "hyperstreams/project.h"
#include "project_statistic.h"
#include "skinny_gradient.h"

namespace hyperstreams::cuda {
namespace {

constexpr int kMaxTiles = 4;
constexpr int kMaxLogitsAtOnce = 8 * kMaxTiles;
// Groups of 16 tokens whose grad_x a warp holds while it walks over many logits.
constexpr int kHeldSteps = 2;
// Leaves 255 registers to a thread.
constexpr int kBlocksPerMultiprocessor = 2;
constexpr int kFinishChannels = 32;
constexpr int kFinishRows = 8;

struct BackwardWork {
  int64_t columns, tokens_per_part;
  float* partials;  // [parts, K, columns * kChannels]
  int64_t parts;
};

/// A lane's vectors of one column.
template <class S, bool kWhole>
struct ColumnOfX {
  static constexpr int kVector = Vector<S>::kSize;
  const ProjectBackwardArgs& args;
  int64_t stream, c, left;  // left: channels from c on; none beyond the last column

  __device__ __forceinline__ ColumnOfX(const ProjectBackwardArgs& a, int64_t column) : args(a) {
    const Column at(column, a.shape.width, kVector);
    stream = at.stream;
    c = at.c;
    left = stream < a.shape.n_streams ? a.shape.width - c : 0;
  }

  __device__ __forceinline__ void load(int64_t first, int64_t end, StepTokens<S>& x) const {
#pragma unroll
    for (int i = 0; i < kLaneTokens; ++i) {
      const int64_t t = first + lane() % 4 * kLaneTokens + i;
      const S* row = static_cast<const S*>(args.x.data) + t * args.x.token_stride +
                     stream * args.x.stream_stride + c;
      x.token[i] = load_packed<kWhole, kVector>(row, t < end ? left : 0);
    }
  }

  /// This lane's channels of W; zeros from logit K on.
  __device__ __forceinline__ void load_weight(int64_t logit, float (&to)[kVector]) const {
    const int64_t d = stream * args.shape.width + c;
    const bool exists = logit < args.shape.n_logits && left > 0;
#pragma unroll
    for (int k = 0; k < kVector; ++k) to[k] = 0;
    if (!exists) return;
    const int64_t features = args.shape.n_streams * args.shape.width;
    load_floats<kWhole>(static_cast<const float*>(args.phi) + logit * features + d, left, to);
    if (!args.norm_weight) return;
    float scale[kVector];
    load_floats<kWhole>(static_cast<const float*>(args.norm_weight) + d, left, scale);
#pragma unroll
    for (int k = 0; k < kVector; ++k) to[k] *= scale[k];
  }

  /// Writes grad + factor x.
  __device__ __forceinline__ void store(int64_t first, int64_t end, const StepTokens<S>& x,
                                        const float (&factor)[kStepTokens],
                                        const float (&grad)[kLaneTokens][kVector]) const {
    if (left <= 0) return;
#pragma unroll
    for (int i = 0; i < kLaneTokens; ++i) {
      const int token = lane() % 4 * kLaneTokens + i;
      const int64_t t = first + token;
      float out[kVector];
#pragma unroll
      for (int k = 0; k < kVector; ++k) out[k] = fmaf(factor[token], x.token[i][k], grad[i][k]);
      S* row =
          static_cast<S*>(args.grad_x) + (t * args.shape.n_streams + stream) * args.shape.width + c;
      if (t < end) store_floats<kWhole>(row, left, out);
    }
  }
};

/// Factors of the statistic of 16 tokens, one a thread.
__device__ __forceinline__ void store_factors(const ProjectBackwardArgs& args, int64_t first,
                                              int64_t end, float (&factor)[kStepTokens]) {
  if (threadIdx.x >= kStepTokens) return;
  const int64_t t = first + threadIdx.x;
  const auto features = static_cast<float>(args.shape.n_streams * args.shape.width);
  factor[threadIdx.x] =
      t < end ? statistic_factor(features, static_cast<float>(args.eps), args.eps_position,
                                 static_cast<const float*>(args.inv_rms)[t],
                                 static_cast<const float*>(args.grad_inv_rms)[t])
              : 0.0f;
}

template <class S, int kTiles, bool kGradX>
struct BackwardStorage {
  GradientFragments<S, kTiles> gradients[2];
  WeightFragments<S, kTiles> weights;
};
template <class S, int kTiles>
struct BackwardStorage<S, kTiles, false> {
  GradientFragments<S, kTiles> gradients[2];
};

/// grad_phi of the logits from blockIdx.y / parts * 8 kTiles on; kGradX: grad_x too, all logits
/// being among them.
template <class S, int kTiles, bool kWhole, bool kGradX>
__global__ void __launch_bounds__(kGradientThreads, kBlocksPerMultiprocessor)
    project_backward_kernel(const ProjectBackwardArgs args, const BackwardWork work) {
  using Traits = GradientTraits<S, kTiles>;
  auto& storage = shared<BackwardStorage<S, kTiles, kGradX>>();
  const int64_t tokens = args.shape.tokens, n_logits = args.shape.n_logits;
  const int64_t part = blockIdx.y % work.parts;
  const int64_t first_logit = blockIdx.y / work.parts * Traits::kLogits;
  const int64_t column = int64_t{blockIdx.x} * kGradientWarps + threadIdx.x / kWarpThreads;
  const int64_t begin = part * work.tokens_per_part;
  const int64_t end = begin + work.tokens_per_part < tokens ? begin + work.tokens_per_part : tokens;
  const float* g = static_cast<const float*>(args.grad_logits);

  const ColumnOfX<S, kWhole> rows(args, column);
  if constexpr (kGradX) {
    storage.weights.fill(first_logit, [&](int64_t logit, float (&to)[Traits::kVector]) {
      rows.load_weight(logit, to);
    });
  }
  WeightGradient<S, kTiles> grad_weight;
  GradientLoader<S, kTiles> loader;
  StepTokens<S> x, next;
  loader.load(g, n_logits, begin, end, first_logit);
  loader.store(storage.gradients[0]);
  if (kGradX) store_factors(args, begin, end, storage.gradients[0].factor);
  rows.load(begin, end, x);
  int now = 0;
#pragma unroll 1
  for (int64_t t = begin; t < end; t += kStepTokens) {
    loader.load(g, n_logits, t + kStepTokens, end, first_logit);
    rows.load(t + kStepTokens, end, next);
    block_barrier();  // the gradients have come, and all are done with the others
    const auto& gradients = storage.gradients[now];
    if constexpr (kGradX) {
      float grad[kLaneTokens][Traits::kVector] = {};
      add_grad_v(storage.weights, gradients, grad);
      rows.store(t, end, x, gradients.factor, grad);
    }
    grad_weight.add(x, gradients);
    now = 1 - now;
    loader.store(storage.gradients[now]);
    if (kGradX) store_factors(args, t + kStepTokens, end, storage.gradients[now].factor);
    x = next;
  }
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

/// grad_x for more logits than one block takes at once: the block walks over them and holds the
/// sums of 16 kHeldSteps tokens.
template <class S, bool kWhole>
__global__ void __launch_bounds__(kGradientThreads, kBlocksPerMultiprocessor)
    project_grad_x_kernel(const ProjectBackwardArgs args, int64_t column_blocks) {
  using Traits = GradientTraits<S, kMaxTiles>;
  auto& storage = shared<BackwardStorage<S, kMaxTiles, true>>();
  const int64_t tokens = args.shape.tokens;
  const int64_t column = blockIdx.x % column_blocks * kGradientWarps + threadIdx.x / kWarpThreads;
  const int64_t first = blockIdx.x / column_blocks * (kHeldSteps * kStepTokens);
  const ColumnOfX<S, kWhole> rows(args, column);
  static_assert(kHeldSteps == 2, "a buffer of gradients for each");
  float grad[kHeldSteps][kLaneTokens][Traits::kVector] = {};
#pragma unroll 1
  for (int64_t logit = 0; logit < args.shape.n_logits; logit += Traits::kLogits) {
    if (logit > 0) block_barrier();  // all are done with the fragments
    storage.weights.fill(logit,
                         [&](int64_t k, float (&to)[Traits::kVector]) { rows.load_weight(k, to); });
#pragma unroll
    for (int held = 0; held < kHeldSteps; ++held) {
      GradientLoader<S, kMaxTiles> loader;
      loader.load(static_cast<const float*>(args.grad_logits), args.shape.n_logits,
                  first + held * kStepTokens, tokens, logit);
      loader.store(storage.gradients[held]);
      store_factors(args, first + held * kStepTokens, tokens, storage.gradients[held].factor);
    }
    block_barrier();
#pragma unroll
    for (int held = 0; held < kHeldSteps; ++held) {
      add_grad_v(storage.weights, storage.gradients[held], grad[held]);
    }
  }
#pragma unroll
  for (int held = 0; held < kHeldSteps; ++held) {
    StepTokens<S> x;
    rows.load(first + held * kStepTokens, tokens, x);
    rows.store(first + held * kStepTokens, tokens, x, storage.gradients[held].factor, grad[held]);
  }
}

struct FinishStorage {
  float sum[kFinishRows][kFinishChannels];
};

/// A block owns 32 channels; thread (x, y) adds the parts of channel x for logits y, y + 8, ...
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
    for (int64_t k = threadIdx.y; k < shape.n_logits; k += kFinishRows) {
      float sum = 0;
      for (int64_t part = 0; part < work.parts; ++part) {
        sum += work.partials[(part * shape.n_logits + k) * stride + at];
      }
      static_cast<float*>(args.grad_phi)[k * features + d] = norm_weight ? sum * scale : sum;
      if (norm_weight) grad_norm = fmaf(sum, phi[k * features + d], grad_norm);
    }
  }
  if (!norm_weight) return;
  storage.sum[threadIdx.y][threadIdx.x] = grad_norm;
  block_barrier();
  if (threadIdx.y > 0 || d >= features) return;
  for (int y = 1; y < kFinishRows; ++y) grad_norm += storage.sum[y][threadIdx.x];
  static_cast<float*>(args.grad_norm_weight)[d] = grad_norm;
}

/// grad_x and grad_phi in one walk, up to 32 logits.
template <class S>
Status launch_together(const ProjectBackwardArgs& args, const ProjectBackwardPlan& plan,
                       const BackwardWork& work, Stream stream) {
  const auto go = [&](auto tiles, auto whole) {
    return launch(project_backward_kernel<S, decltype(tiles)::value, decltype(whole)::value, true>,
                  plan.walk, stream, args, work);
  };
  if (!plan.whole_vectors) return go(std::integral_constant<int, 4>{}, std::false_type{});
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
    return launch(project_backward_kernel<S, kMaxTiles, kWhole, false>, plan.walk, stream, args,
                  work);
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
      return shape.n_logits > kMaxLogitsAtOnce ? launch_apart<S>(args, plan, work, stream)
                                               : launch_together<S>(args, plan, work, stream);
    });
  }
  if (status != Status::kOk) return status;
  return launch(project_backward_finish_kernel, plan.finish, stream, args, work,
                int64_t{plan.channels});
}

}  // namespace hyperstreams::cuda
