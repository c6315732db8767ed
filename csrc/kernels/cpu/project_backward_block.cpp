// The products of project's backward on one tile of tokens and one block of channels that stay in
// L1 (converted and zero-padded): first the tile's grad_x (tokens x channels in registers, logits
// inside), then its share of grad_phi (logits x channels in registers, tokens inside), added to the
// partition's partial sums.
#include "project_backward_block.h"

namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE {
namespace {

constexpr int64_t kRows = kProjectRows;
constexpr int64_t kColumns = kProjectBlock;

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
    add_outer_product(
        acc, [&](int t) { return grad_logits[t * n_logits + k]; }, weight + k * kColumns);
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
    add_outer_product(acc, [&](int k) { return grad_logits[t * n_logits + k]; }, x + t * kColumns);
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

}  // namespace

template <class S>
void project_backward_block(const ProjectShape& shape,
                            const ProjectBackwardPlan<accumulate_t<S>>& plan, const StreamsView& x,
                            const ProjectBackwardBlock<accumulate_t<S>>& b) {
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

#define HYPERSTREAMS_INSTANTIATE_PROJECT_BLOCK(S)                                           \
  template void project_backward_block<S>(                                                  \
      const ProjectShape&, const ProjectBackwardPlan<accumulate_t<S>>&, const StreamsView&, \
      const ProjectBackwardBlock<accumulate_t<S>>&);

HYPERSTREAMS_INSTANTIATE_PROJECT_BLOCK(float)
HYPERSTREAMS_INSTANTIATE_PROJECT_BLOCK(double)
HYPERSTREAMS_INSTANTIATE_PROJECT_BLOCK(BFloat16)
HYPERSTREAMS_INSTANTIATE_PROJECT_BLOCK(Float16)

}  // namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE
