// project forward on the CPU: a skinny matrix product with the sum of squares taken on the way.
//
// phi is transposed once into [D, K padded to lanes], so that logits live in lanes: a tile of
// tokens keeps its accumulators in registers and each channel costs one fused multiply-add per
// token and lane group, with x broadcast from memory. Every kBlock channels of a stream the block's
// sums are added to the totals: a bound on rounding that does not depend on the tile.
#include "hyperstreams/project.h"

#include "ahead.h"
#include "project_tile.h"
#include "tile_transpose.h"
#include "token_ranges.h"

namespace hyperstreams::cpu {
namespace HYPERSTREAMS_ISA_NAMESPACE {
namespace {

constexpr int64_t kBlock = 256;

/// Logits rounded up to whole lanes, as the workspace holds them.
template <class T>
int64_t padded_logits(const ProjectArgs& args) {
  constexpr int64_t size = Lanes<T>::size;
  return (args.shape.n_logits + size - 1) / size * size;
}

#ifdef HYPERSTREAMS_WIDE_TRANSPOSE
/// Channels [d, d + 4) of phi, to lanes of logits.
HYPERSTREAMS_INLINE void transpose_four(const float* phi, int64_t features, int64_t n_logits,
                                        int64_t d, float* out, int64_t padded) {
  static constexpr float kZeros[4] = {};
  for (int64_t k = 0; k < padded; k += Lanes<float>::size) {
    const auto row = [&](int64_t r) {
      return k + r < n_logits ? phi + (k + r) * features + d : kZeros;
    };
    WideTranspose::load(row, out + k, padded);
  }
}
#endif

/// Channels [begin, end) of phi, times the norm's weight, to [features, padded].
template <class T>
void transpose_channels(const ProjectArgs& args, int64_t begin, int64_t end) {
  const int64_t features = args.shape.features(), n_logits = args.shape.n_logits;
  const int64_t padded = padded_logits<T>(args);
  T* out = static_cast<T*>(args.workspace);
  const T* phi = static_cast<const T*>(args.phi);
  int64_t d = begin;
#ifdef HYPERSTREAMS_WIDE_TRANSPOSE
  if constexpr (std::is_same_v<T, float>) {
    for (; d + 4 <= end; d += 4) {
      transpose_four(phi, features, n_logits, d, out + d * padded, padded);
    }
  }
#endif
  for (; d < end; ++d) {
    for (int64_t k = 0; k < n_logits; ++k) out[d * padded + k] = phi[k * features + d];
    for (int64_t k = n_logits; k < padded; ++k) out[d * padded + k] = T(0);
  }
  const T* norm_weight = static_cast<const T*>(args.norm_weight);
  for (d = begin; norm_weight && d < end; ++d) {
    for (int64_t k = 0; k < n_logits; ++k) out[d * padded + k] *= norm_weight[d];
  }
}

/// With few tokens this is most of the work.
template <class T>
void transpose_weight(const ProjectArgs& args, ParallelFor parallel_for) {
  parallel(parallel_for, args.shape.features(), token_grain(padded_logits<T>(args) * sizeof(T)),
           [&](int64_t begin, int64_t end) { transpose_channels<T>(args, begin, end); });
}

/// sums[t][k..] += sum_c rows[t][c] weight[c][k..] for kTokens tokens and kGroups lane groups of k.
template <class T, int kTokens, int kGroups>
HYPERSTREAMS_INLINE void accumulate_logits(const T* const* rows, int64_t channels, const T* weight,
                                           int64_t padded, T* const* sums, Ahead& ahead) {
  using lanes_t = Lanes<T>;
  lanes_t acc[kTokens][kGroups];
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g) acc[t][g] = lanes_t::set(0);
  }
  Ahead::Lines lines = ahead.take(channels);
  for (int64_t c = 0; c < channels; ++c) {
    lines();
    add_outer_product(acc, [&](int t) { return rows[t][c]; }, weight + c * padded);
  }
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g) {
      T* sum = sums[t] + g * lanes_t::size;
      (lanes_t::load(sum) + acc[t][g]).store(sum);
    }
  }
}

template <class T>
T inverse_rms(T mean_square, T eps, EpsPosition position) {
  switch (position) {
    case EpsPosition::kInside:
      return T(1) / std::sqrt(mean_square + eps);
    case EpsPosition::kOutside:
      return T(1) / (std::sqrt(mean_square) + eps);
    case EpsPosition::kFloor:
      break;
  }
  const T rms = std::sqrt(mean_square);
  return T(1) / (rms > eps ? rms : eps);
}

/// Logits and statistics of kTokens consecutive tokens.
template <class S, int kTokens>
void project_tile(const ProjectArgs& args, const accumulate_t<S>* weight, int64_t padded,
                  int64_t first, Ahead& ahead) {
  using T = accumulate_t<S>;
  using lanes_t = Lanes<T>;
  constexpr int kGroups = kTileGroups;
  const int64_t n_logits = args.shape.n_logits, width = args.shape.width;
  // Logits are taken in slabs so that the running sums stay small and on the stack.
  constexpr int64_t kSlab = 4 * kGroups * lanes_t::size;
  T sums[kTokens][kSlab];
  T converted[kTokens][kBlock];
  lanes_t square[kTokens];
  for (int t = 0; t < kTokens; ++t) square[t] = lanes_t::set(0);
  const S* x = static_cast<const S*>(args.x.data) + first * args.x.token_stride;

  for (int64_t slab = 0; slab < padded; slab += kSlab) {
    const int64_t slab_end = slab + kSlab < padded ? slab + kSlab : padded;
    for (int t = 0; t < kTokens; ++t) {
      for (int64_t k = 0; k < slab_end - slab; ++k) sums[t][k] = T(0);
    }
    for (int i = 0; i < args.shape.n_streams; ++i) {
      for (int64_t c = 0; c < width; c += kBlock) {
        const int64_t channels = width - c < kBlock ? width - c : kBlock;
        const T* rows[kTokens];
        for (int t = 0; t < kTokens; ++t) {
          const S* row = x + t * args.x.token_stride + i * args.x.stream_stride + c;
          rows[t] = as_accumulated(row, channels, converted[t]);
          if (slab == 0) square[t] = add_squares(rows[t], channels, square[t]);
        }
        const T* block = weight + (i * width + c) * padded;
        int64_t k = slab;
        for (; k + kGroups * lanes_t::size <= slab_end; k += kGroups * lanes_t::size) {
          T* targets[kTokens];
          for (int t = 0; t < kTokens; ++t) targets[t] = sums[t] + (k - slab);
          accumulate_logits<T, kTokens, kGroups>(rows, channels, block + k, padded, targets, ahead);
        }
        for (; k < slab_end; k += lanes_t::size) {
          T* targets[kTokens];
          for (int t = 0; t < kTokens; ++t) targets[t] = sums[t] + (k - slab);
          accumulate_logits<T, kTokens, 1>(rows, channels, block + k, padded, targets, ahead);
        }
      }
    }
    for (int t = 0; t < kTokens; ++t) {
      T* logits = static_cast<T*>(args.logits) + (first + t) * n_logits;
      for (int64_t k = slab; k < slab_end && k < n_logits; ++k) logits[k] = sums[t][k - slab];
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    const T mean_square = square[t].sum() / static_cast<T>(args.shape.features());
    static_cast<T*>(args.inv_rms)[first + t] =
        inverse_rms(mean_square, static_cast<T>(args.eps), args.eps_position);
  }
}

}  // namespace

void project_prepare(const ProjectArgs& args, ParallelFor parallel_for) {
  dispatch_dtype(args.shape.dtype, [&](auto dtype) {
    transpose_weight<accumulate_t<typename decltype(dtype)::type>>(args, parallel_for);
  });
}

void project_tokens(const ProjectArgs& args, int64_t begin, int64_t end, Ahead& ahead) {
  dispatch_dtype(args.shape.dtype, [&](auto dtype) {
    using scalar_t = typename decltype(dtype)::type;
    using acc_t = accumulate_t<scalar_t>;
    const acc_t* weight = static_cast<const acc_t*>(args.workspace);
    const int64_t padded = padded_logits<acc_t>(args);
    for_chunks<kTileTokens>(end - begin, [&](auto count, int64_t t) {
      project_tile<scalar_t, decltype(count)::value>(args, weight, padded, begin + t, ahead);
    });
  });
}

void project_forward(const ProjectArgs& args, ParallelFor parallel_for) {
  const int64_t tokens = args.shape.tokens;
  if (tokens == 0) return;
  project_prepare(args, parallel_for);
  const int64_t tiles = (tokens + kTileTokens - 1) / kTileTokens;
  parallel(parallel_for, tiles, 1, [&](int64_t begin, int64_t end) {
    const int64_t last = end * kTileTokens < tokens ? end * kTileTokens : tokens;
    Ahead nothing;
    project_tokens(args, begin * kTileTokens, last, nothing);
  });
}

}  // namespace HYPERSTREAMS_ISA_NAMESPACE

HYPERSTREAMS_CPU_ENTRY(project_forward, ProjectArgs)

}  // namespace hyperstreams::cpu
