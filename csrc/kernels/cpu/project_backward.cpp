// project backward on the CPU: two skinny products over one pass of X.
//
// A task owns a partition of tokens and walks it in tiles of kRows tokens, each block of channels
// of a tile by project_backward_block. The partitions' sums are added in order at the end.
#include "hyperstreams/project.h"

#include "project_backward_block.h"

namespace hyperstreams::cpu {
namespace HYPERSTREAMS_ISA_NAMESPACE {
namespace {

constexpr int64_t kRows = kProjectRows;
constexpr int64_t kColumns = kProjectBlock;

template <class T>
using Plan = ProjectBackwardPlan<T>;

template <class T>
void weight_phi(const ProjectBackwardArgs& args, const Plan<T>& plan, T* weight,
                ParallelFor parallel_for) {
  const ProjectShape& shape = args.shape;
  const T* phi = static_cast<const T*>(args.phi);
  const T* norm_weight = static_cast<const T*>(args.norm_weight);
  const int64_t block_size = shape.n_logits * kColumns;
  parallel(parallel_for, project_blocks(shape), token_grain(block_size * sizeof(T)),
           [&](int64_t begin, int64_t end) {
             for (int64_t block = begin; block < end; ++block) {
               const int64_t c = block % plan.blocks_per_stream * kColumns;
               const int64_t d = block / plan.blocks_per_stream * shape.width + c;
               const int64_t channels = shape.width - c < kColumns ? shape.width - c : kColumns;
               for (int64_t k = 0; k < shape.n_logits; ++k) {
                 const T* row = phi + k * shape.features() + d;
                 T* out = weight + block * block_size + k * kColumns;
                 for (int64_t l = 0; l < channels; ++l) {
                   out[l] = norm_weight ? row[l] * norm_weight[d + l] : row[l];
                 }
                 for (int64_t l = channels; l < kColumns; ++l) out[l] = T(0);
               }
             }
           });
}

template <class T>
void sum_partials(const ProjectBackwardArgs& args, const Plan<T>& plan, ParallelFor parallel_for) {
  const ProjectShape& shape = args.shape;
  const T* phi = static_cast<const T*>(args.phi);
  const T* norm_weight = static_cast<const T*>(args.norm_weight);
  const int64_t block_size = shape.n_logits * kColumns;
  // A task owns blocks of channels, so that grad_norm_weight sums its logits in order.
  const int64_t grain = token_grain(plan.parts * block_size * sizeof(T));
  parallel(parallel_for, project_blocks(shape), grain, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t c = block % plan.blocks_per_stream * kColumns;
      const int64_t d = block / plan.blocks_per_stream * shape.width + c;
      const int64_t channels = shape.width - c < kColumns ? shape.width - c : kColumns;
      T grad_norm[kColumns] = {};
      for (int64_t k = 0; k < shape.n_logits; ++k) {
        T sum[kColumns] = {};
        for (int64_t part = 0; part < plan.parts; ++part) {
          const T* row = plan.partials + part * plan.size + block * block_size + k * kColumns;
          for (int64_t l = 0; l < kColumns; ++l) sum[l] += row[l];
        }
        const int64_t offset = k * shape.features() + d;
        T* grad_phi = static_cast<T*>(args.grad_phi) + offset;
        for (int64_t l = 0; l < channels; ++l) {
          grad_norm[l] += sum[l] * phi[offset + l];
          grad_phi[l] = norm_weight ? sum[l] * norm_weight[d + l] : sum[l];
        }
      }
      if (!norm_weight) continue;
      T* out = static_cast<T*>(args.grad_norm_weight) + d;
      for (int64_t l = 0; l < channels; ++l) out[l] = grad_norm[l];
    }
  });
}

}  // namespace

template <class T>
T project_statistic_factor(const ProjectShape& shape, double eps, EpsPosition eps_position,
                           T inv_rms, T grad_inv_rms) {
  const T inv = inv_rms, grad = grad_inv_rms;
  const T features = static_cast<T>(shape.features()), floor = static_cast<T>(eps);
  switch (eps_position) {
    case EpsPosition::kInside:
      return -grad * inv * inv * inv / features;
    case EpsPosition::kOutside: {
      const T rms = T(1) / inv - floor;
      return rms > T(0) ? -grad * inv * inv / (rms * features) : T(0);
    }
    case EpsPosition::kFloor:
      break;
  }
  return T(1) / inv > floor ? -grad * inv * inv * inv / features : T(0);
}

template <class T>
Plan<T> project_backward_prepare(const ProjectBackwardArgs& args, ParallelFor parallel_for) {
  const ProjectShape& shape = args.shape;
  T* workspace = static_cast<T*>(args.workspace);
  Plan<T> plan;
  plan.blocks_per_stream = project_blocks(shape) / shape.n_streams;
  plan.size = project_blocks(shape) * shape.n_logits * kColumns;
  plan.parts = project_partitions(shape);
  plan.weight = workspace;
  plan.partials = workspace + plan.size;
  weight_phi(args, plan, workspace, parallel_for);
  return plan;
}

template <class T>
void project_backward_finish(const ProjectBackwardArgs& args, const Plan<T>& plan,
                             ParallelFor parallel_for) {
  sum_partials(args, plan, parallel_for);
}

namespace {

/// grad_x and partial sums of tokens [first, first + tokens), at most kRows.
template <class S>
void backward_rows(const ProjectBackwardArgs& args, const Plan<accumulate_t<S>>& plan,
                   int64_t first, int64_t tokens, accumulate_t<S>* partial) {
  using T = accumulate_t<S>;
  const ProjectShape& shape = args.shape;
  T factor[kRows], grad[kRows * kColumns];
  Ahead nothing;
  for (int64_t r = 0; r < tokens; ++r) {
    factor[r] = project_statistic_factor(shape, args.eps, args.eps_position,
                                         static_cast<const T*>(args.inv_rms)[first + r],
                                         static_cast<const T*>(args.grad_inv_rms)[first + r]);
  }
  const StreamsView x = {static_cast<const S*>(args.x.data) + first * args.x.token_stride,
                         args.x.token_stride, args.x.stream_stride};
  const T* grad_logits = static_cast<const T*>(args.grad_logits) + first * shape.n_logits;
  for (int i = 0; i < shape.n_streams; ++i) {
    for (int64_t c = 0; c < shape.width; c += kColumns) {
      project_backward_block<S>(
          shape, plan, x,
          {tokens, i, c, factor, grad_logits, partial, grad, kColumns, false, &nothing});
      const int64_t channels = shape.width - c < kColumns ? shape.width - c : kColumns;
      for (int64_t t = 0; t < tokens; ++t) {
        S* out =
            static_cast<S*>(args.grad_x) + ((first + t) * shape.n_streams + i) * shape.width + c;
        const T* row = grad + t * kColumns;
        for_channels<T>(
            channels, [&](int64_t k) { Lanes<T>::load(row + k).store(out + k); },
            [&](int64_t k, int64_t count) {
              store_partial(out + k, Lanes<T>::load(row + k), count);
            });
      }
    }
  }
}

}  // namespace

void project_backward(const ProjectBackwardArgs& args, ParallelFor parallel_for) {
  dispatch_dtype(args.shape.dtype, [&](auto dtype) {
    using scalar_t = typename decltype(dtype)::type;
    using acc_t = accumulate_t<scalar_t>;
    const Plan<acc_t> plan = project_backward_prepare<acc_t>(args, parallel_for);
    parallel(parallel_for, plan.parts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t part = begin; part < end; ++part) {
        acc_t* partial = plan.partial(part);
        std::memset(partial, 0, static_cast<size_t>(plan.size) * sizeof(acc_t));
        const int64_t last = partition_begin(args.shape.tokens, plan.parts, part + 1);
        for (int64_t t = partition_begin(args.shape.tokens, plan.parts, part); t < last;
             t += kRows) {
          backward_rows<scalar_t>(args, plan, t, last - t < kRows ? last - t : kRows, partial);
        }
      }
    });
    project_backward_finish(args, plan, parallel_for);
  });
}

#define HYPERSTREAMS_INSTANTIATE_PROJECT(T)                                               \
  template ProjectBackwardPlan<T> project_backward_prepare<T>(const ProjectBackwardArgs&, \
                                                              ParallelFor);               \
  template T project_statistic_factor<T>(const ProjectShape&, double, EpsPosition, T, T); \
  template void project_backward_finish<T>(const ProjectBackwardArgs&,                    \
                                           const ProjectBackwardPlan<T>&, ParallelFor);

HYPERSTREAMS_INSTANTIATE_PROJECT(float)
HYPERSTREAMS_INSTANTIATE_PROJECT(double)

}  // namespace HYPERSTREAMS_ISA_NAMESPACE

HYPERSTREAMS_CPU_ENTRY(project_backward, ProjectBackwardArgs)

}  // namespace hyperstreams::cpu
