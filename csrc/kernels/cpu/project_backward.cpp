// project backward on the CPU: two skinny products over one pass of X.
//
// A task owns a partition of tokens and walks it in tiles of kRows tokens x kColumns channels that
// stay in L1 (converted and zero-padded): first the tile's grad_x (tokens x channels in registers,
// logits inside), then its share of grad_phi (logits x channels in registers, tokens inside), added
// to the partition's partial sums. These are summed in partition order at the end.
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

/// grad_x of kTokens tokens x kGroups lane groups of channels, to rows of `out` or added to them.
template <class T, int kTokens, int kGroups, bool kAdd>
HYPERSTREAMS_INLINE void tile_grad_x(const T* x, const T* factor, const T* grad_logits,
                                     int64_t n_logits, const T* weight, T* out, int64_t stride,
                                     Ahead& ahead) {
  using lanes_t = Lanes<T>;
  lanes_t acc[kTokens][kGroups];
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g) {
      const lanes_t v = lanes_t::load(x + t * kColumns + g * lanes_t::size);
      const T* sum = out + t * stride + g * lanes_t::size;
      acc[t][g] =
          kAdd ? fma(lanes_t::set(factor[t]), v, lanes_t::load(sum)) : lanes_t::set(factor[t]) * v;
    }
  }
  Ahead::Lines lines = ahead.take(kTokens == kTileTokens ? n_logits : 0);
  for (int64_t k = 0; k < n_logits; ++k) {
    if constexpr (kTokens == kTileTokens) lines();
    lanes_t w[kGroups];
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g)
      w[g] = lanes_t::load(weight + k * kColumns + g * lanes_t::size);
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      const lanes_t grad = lanes_t::set(grad_logits[t * n_logits + k]);
#pragma GCC unroll 2
      for (int g = 0; g < kGroups; ++g) acc[t][g] = fma(grad, w[g], acc[t][g]);
    }
  }
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g) acc[t][g].store(out + t * stride + g * lanes_t::size);
  }
}

/// partial[k][c..] += sum_t grad_logits[t][k] x[t][c..] for kLogits logits x kGroups lane groups.
template <class T, int kLogits, int kGroups>
HYPERSTREAMS_INLINE void tile_grad_phi(const T* x, int64_t tokens, const T* grad_logits,
                                       int64_t n_logits, T* partial, Ahead& ahead) {
  using lanes_t = Lanes<T>;
  lanes_t acc[kLogits][kGroups];
#pragma GCC unroll 16
  for (int k = 0; k < kLogits; ++k) {
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g) acc[k][g] = lanes_t::set(0);
  }
  Ahead::Lines lines = ahead.take(kLogits == kTileTokens ? tokens : 0);
  for (int64_t t = 0; t < tokens; ++t) {
    if constexpr (kLogits == kTileTokens) lines();
    lanes_t row[kGroups];
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g) row[g] = lanes_t::load(x + t * kColumns + g * lanes_t::size);
#pragma GCC unroll 16
    for (int k = 0; k < kLogits; ++k) {
      const lanes_t grad = lanes_t::set(grad_logits[t * n_logits + k]);
#pragma GCC unroll 2
      for (int g = 0; g < kGroups; ++g) acc[k][g] = fma(grad, row[g], acc[k][g]);
    }
  }
#pragma GCC unroll 16
  for (int k = 0; k < kLogits; ++k) {
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g) {
      T* sum = partial + k * kColumns + g * lanes_t::size;
      (lanes_t::load(sum) + acc[k][g]).store(sum);
    }
  }
}

/// Calls f(StaticCount<groups>{}, channel) over `padded` channels, a multiple of the lane count.
template <class T, class F>
HYPERSTREAMS_INLINE void for_groups(int64_t padded, const F& f) {
  constexpr int64_t size = Lanes<T>::size;
  int64_t c = 0;
  for (; c + kTileGroups * size <= padded; c += kTileGroups * size) {
    f(StaticCount<kTileGroups>{}, c);
  }
  for (; c < padded; c += size) f(StaticCount<1>{}, c);
}

/// The block's grad_x from its x in L1.
template <bool kAdd, class T>
void block_grad_x(const ProjectBackwardBlock<T>& block, int64_t n_logits, int64_t padded,
                  const T* x, const T* weight) {
  for_groups<T>(padded, [&](auto groups, int64_t g) {
    for_chunks<kTileTokens>(block.tokens, [&](auto count, int64_t t) {
      tile_grad_x<T, decltype(count)::value, decltype(groups)::value, kAdd>(
          x + t * kColumns + g, block.factor + t, block.grad_logits + t * n_logits, n_logits,
          weight + g, block.grad + t * block.grad_stride + g, block.grad_stride, *block.ahead);
    });
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

template <class S>
void project_backward_block(const ProjectShape& shape, const Plan<accumulate_t<S>>& plan,
                            const StreamsView& x, const ProjectBackwardBlock<accumulate_t<S>>& b) {
  using T = accumulate_t<S>;
  constexpr int64_t size = Lanes<T>::size;
  const int64_t n_logits = shape.n_logits;
  const int64_t channels = shape.width - b.c < kColumns ? shape.width - b.c : kColumns;
  const int64_t padded = (channels + size - 1) / size * size;
  T in_l1[kRows * kColumns];
  for (int64_t t = 0; t < b.tokens; ++t) {
    const S* row = static_cast<const S*>(x.data) + t * x.token_stride + b.i * x.stream_stride + b.c;
    for_channels<T>(
        channels, [&](int64_t k) { Lanes<T>::load(row + k).store(in_l1 + t * kColumns + k); },
        [&](int64_t k, int64_t count) {
          load_partial(row + k, count).store(in_l1 + t * kColumns + k);
        });
  }
  const int64_t offset = (b.i * plan.blocks_per_stream + b.c / kColumns) * n_logits * kColumns;
  if (b.add) {
    block_grad_x<true>(b, n_logits, padded, in_l1, plan.weight + offset);
  } else {
    block_grad_x<false>(b, n_logits, padded, in_l1, plan.weight + offset);
  }
  for_groups<T>(padded, [&](auto groups, int64_t g) {
    for_chunks<kTileTokens>(n_logits, [&](auto count, int64_t k) {
      tile_grad_phi<T, decltype(count)::value, decltype(groups)::value>(
          in_l1 + g, b.tokens, b.grad_logits + k, n_logits, b.partial + offset + k * kColumns + g,
          *b.ahead);
    });
  });
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

#define HYPERSTREAMS_INSTANTIATE_PROJECT_BLOCK(S)                                           \
  template void project_backward_block<S>(                                                  \
      const ProjectShape&, const ProjectBackwardPlan<accumulate_t<S>>&, const StreamsView&, \
      const ProjectBackwardBlock<accumulate_t<S>>&);

HYPERSTREAMS_INSTANTIATE_PROJECT_BLOCK(float)
HYPERSTREAMS_INSTANTIATE_PROJECT_BLOCK(double)
HYPERSTREAMS_INSTANTIATE_PROJECT_BLOCK(BFloat16)
HYPERSTREAMS_INSTANTIATE_PROJECT_BLOCK(Float16)

}  // namespace HYPERSTREAMS_ISA_NAMESPACE

HYPERSTREAMS_CPU_ENTRY(project_backward, ProjectBackwardArgs)

}  // namespace hyperstreams::cpu
