// stream_stats on CUDA: sums over tokens of Gram matrices, shares, entropies and angles.
//
//   stats[k] = sum_t value_k(t)      (the values stand in hyperstreams/stream_stats.h)
//
// A block of 4 warps owns a range of tokens. A warp takes one token at a time, or two neighbours
// (2-byte types, n = 4), in three steps: (1) its lanes share the channels and leave the products in
// shared memory: with n = 4 all in one walk, else in passes of five rows (y first) and, for every
// stream, one over the two tokens before it; (2) they share what follows from the
// products: shares, entropies, angles, cosines; (3) they add the packed values to the warp's sums.
// At the end the block adds its warps and writes a row of partials. A second kernel adds the rows.
//   (n + 1) C elements and 2n + n n floats per token from memory; the rows of a token are read
//   once or twice more, from cache, beside the tokens that follow it. 8 stream_stats_size(n) bytes
//   per block.
//
// Products and sums are double: those of two floats are exact. Deterministic: width and dtype fix
// the order of a token's sums, the number of tokens fixes the ranges; a warp adds its tokens in
// ascending order, a block its warps.
// 13 kernels (3 dtypes, whole vectors or masked, four streams or any number; the sum of the
// partials); y's dtype is known at run time only.
#include "hyperstreams/stream_stats.h"

#include <algorithm>
#include <limits>

#include "device/device.h"
#include "dispatch.h"
#include "hyperstreams/plan.h"
#include "stream_stats_products.h"
#include "sum_partials.h"

namespace hyperstreams::cuda {
namespace {

constexpr int kStatsThreads = 128;
constexpr int kStatsWarps = kStatsThreads / kWarpThreads;
// Leaves 255 registers to a thread.
constexpr int kBlocksPerMultiprocessor = 2;
constexpr double kLargest = std::numeric_limits<double>::max();

/// Tokens that a warp takes at a time: two share the streams of the one and the step between them.
/// Two of float would not fit registers.
template <class S, int kN>
constexpr int kTokensAtOnce = kN > 0 && sizeof(S) == 2 ? 2 : 1;

__device__ __forceinline__ double ratio(double numerator, double denominator) {
  return denominator == 0 ? 0 : numerator / denominator;
}

/// What a warp keeps in shared memory: double each.
template <int kTokens>
struct WarpValues {
  double* sums;    // [size], over the warp's tokens
  double* packed;  // [kTokens, size]: values of the tokens at hand
  double*
      terms;  // [kTokens, 3, n]: of the entropies of reading and of writing; sums of gram's rows
  Motions<kTokens> motions;

  __device__ __forceinline__ WarpValues(double* warp, const StatsLayout& layout) {
    sums = warp;
    packed = sums + layout.size;
    terms = packed + kTokens * layout.size;
    motions = {terms + 3 * kTokens * layout.n, layout.n};
  }
  /// How many there are.
  static int count(int n, int size) {
    return (1 + kTokens) * size + (3 * kTokens + Motions<kTokens>::kRows) * n;
  }
};

/// Calls f(token, k) for every token below `tokens` and k below `count`, on some lane each.
template <class F>
__device__ __forceinline__ void share_over_warp(int tokens, int count, const F& f) {
  for (int k = lane(); k < tokens * count; k += kWarpThreads) f(k / count, k % count);
}

/// The coefficients of tokens from t on, packed; what is absent reads as the contract has it.
__device__ __forceinline__ void load_coefficients(const StreamStatsArgs& args,
                                                  const StatsLayout& at, int64_t t, int tokens,
                                                  double* packed) {
  const auto row = [&](const RowsView& rows, int token) {
    return static_cast<const float*>(rows.data) + (t + token) * rows.token_stride;
  };
  share_over_warp(tokens, at.n, [&](int token, int i) {
    double* to = packed + token * at.size;
    to[at.h_pre + i] = args.h_pre.data ? row(args.h_pre, token)[i] : 0;
    to[at.h_post + i] = args.h_post.data ? row(args.h_post, token)[i] : 0;
  });
  share_over_warp(tokens, at.n * at.n, [&](int token, int k) {
    double value = args.h_post.data && k % (at.n + 1) == 0 ? 1 : 0;
    if (args.h_res.data) value = row(args.h_res, token)[k];
    packed[token * at.size + at.h_res + k] = value;
    packed[token * at.size + at.h_res_square + k] = value * value;
  });
}

/// The shares of stream i in reading or writing, its term of the entropy, and its gram row's sum.
__device__ __forceinline__ void set_shares(const StatsLayout& at, bool write, int i, double* of,
                                           double* terms) {
  const double* h = of + (write ? at.h_post : at.h_pre);
  const auto signal = [&](int k) { return write ? h[k] * h[k] : fabs(h[k]) * of[at.norm + k]; };
  double total = 0, signals = 0, row = 0;
  for (int k = 0; k < at.n; ++k) {
    total += fabs(h[k]);
    signals += signal(k);
    row += of[at.gram + i * at.rows + k];
  }
  const double share = ratio(fabs(h[i]), total);
  of[(write ? at.write_share : at.read_share) + i] = share;
  of[(write ? at.write_signal : at.read_signal) + i] = ratio(signal(i), signals);
  terms[write * at.n + i] = share == 0 ? 0 : -share * log(share);
  if (!write) terms[2 * at.n + i] = row;
}

/// The angle between vectors of squared norms a and b with this inner product, where both count.
__device__ __forceinline__ void set_angle(bool exists, double dot, double a, double b,
                                          double& angle, double& count) {
  const bool counts = exists && a > 0 && b > 0 && a <= kLargest && b <= kLargest;
  count = counts ? 1 : 0;
  angle = 0;
  if (!counts) return;
  const double cosine = dot / (sqrt(a) * sqrt(b));
  angle = acos(cosine > 1 ? 1 : cosine < -1 ? -1 : cosine);
}

/// All that follows from the products and coefficients of tokens [t, t + tokens).
template <int kTokens>
__device__ __forceinline__ void describe(const StreamStatsArgs& args, const StatsLayout& at,
                                         int64_t t, int tokens, const WarpValues<kTokens>& values) {
  const int n = at.n;
  share_over_warp(tokens, 2 * n, [&](int token, int k) {
    set_shares(at, k >= n, k % n, values.packed + token * at.size, values.terms + token * 3 * n);
  });
  share_over_warp(tokens, n * n, [&](int token, int k) {
    double* of = values.packed + token * at.size;
    const int i = k / n, j = k % n;
    of[at.cosine + k] = ratio(of[at.gram + i * at.rows + j], of[at.norm + i] * of[at.norm + j]);
  });
  share_over_warp(tokens, 2 * n, [&](int token, int k) {
    double* of = values.packed + token * at.size;
    const Motions<kTokens>& motions = values.motions;
    const int i = k % n;
    const bool turns = k >= n;
    const double a = turns        ? motions.step_square(token, i)
                     : token == 0 ? motions.square_before(i)
                                  : at.square(of - at.size, i);
    const double b = turns ? motions.step_square(token + 1, i) : at.square(of, i);
    const double dot = turns ? motions.turn(token, i) : motions.along(token, i);
    set_angle((t + token) % args.sequence >= (turns ? 2 : 1), dot, a, b,
              of[(turns ? at.curvature : at.position_curvature) + i],
              of[(turns ? at.curvature_count : at.position_curvature_count) + i]);
  });
  warp_barrier();
  share_over_warp(tokens, 3, [&](int token, int k) {
    double* of = values.packed + token * at.size;
    const double* terms = values.terms + (token * 3 + k) * n;
    double sum = 0, energy = 0;
    for (int i = 0; i < n; ++i) {
      sum += terms[i];
      energy += at.square(of, i);
    }
    if (k < 2) {
      of[k == 0 ? at.read_entropy : at.write_entropy] = sum;
    } else {
      of[at.energy] = ratio(energy - sum / n, energy);
      of[0] = 1;
    }
  });
}

/// kN: 4, or 0 for any number of streams.
template <class S, bool kWhole, int kN>
__global__ void __launch_bounds__(kStatsThreads, kBlocksPerMultiprocessor)
    stream_stats_kernel(const __grid_constant__ StreamStatsArgs args, int64_t tokens_per_block,
                        int warp_values) {
  constexpr int kTokens = kTokensAtOnce<S, kN>;
  const StatsLayout layout(kN > 0 ? kN : args.n_streams);
  auto* block = dynamic_shared<double>();
  const WarpValues<kTokens> values(block + threadIdx.x / kWarpThreads * warp_values, layout);
  const int64_t begin = blockIdx.x * tokens_per_block;
  const int64_t end =
      begin + tokens_per_block < args.tokens ? begin + tokens_per_block : args.tokens;
  for (int k = lane(); k < layout.size; k += kWarpThreads) values.sums[k] = 0;
  const int64_t first = begin + threadIdx.x / kWarpThreads * kTokens;
  for (int64_t t = first; t < end; t += kStatsWarps * kTokens) {
    const int tokens = end - t < kTokens ? static_cast<int>(end - t) : kTokens;
    const int64_t position = t % args.sequence;
    load_coefficients(args, layout, t, tokens, values.packed);
    if constexpr (kN > 0) {
      add_four_streams<S, kWhole>(args, layout, t, tokens, position, values.packed, values.motions);
    } else {
      for (int a = 0; a < layout.rows; a += kTile) {
        add_products<S, kWhole, true>(args, layout, t, a, a, values.packed);
        for (int b = a + kTile; b < layout.rows; b += kTile) {
          add_products<S, kWhole, false>(args, layout, t, a, b, values.packed);
        }
      }
      if (position >= 1) add_motions<S, kWhole>(args, t, position, values.motions);
    }
    warp_barrier();
    describe(args, layout, t, tokens, values);
    warp_barrier();
    for (int k = lane(); k < layout.size; k += kWarpThreads) {
      for (int token = 0; token < tokens; ++token) {
        values.sums[k] += values.packed[token * layout.size + k];
      }
    }
    warp_barrier();
  }
  block_barrier();
  double* partial = args.partials + int64_t{blockIdx.x} * layout.size;
  for (int k = threadIdx.x; k < layout.size; k += kStatsThreads) {
    double sum = block[k];
    for (int warp = 1; warp < kStatsWarps; ++warp) sum += block[warp * warp_values + k];
    partial[k] = sum;
  }
}

}  // namespace

Status stream_stats(const StreamStatsArgs& args, Stream stream) {
  if (args.dtype == DType::kFloat64 || args.y_dtype == DType::kFloat64) {
    return Status::kUnsupportedDType;
  }
  const int n = args.n_streams;
  const int64_t alignment = std::min(row_alignment(args.x, args.tokens, n, args.dtype),
                                     row_alignment(args.y, args.tokens, args.y_dtype));
  const StreamStatsPlan plan = plan_stream_stats(args.tokens, args.width, args.dtype, alignment);
  const int size = static_cast<int>(stream_stats_size(n));
  if (args.tokens > 0) {
    const Status status = dispatch_dtype(args.dtype, [&](auto dtype) {
      return dispatch_bool(plan.whole_vectors, [&](auto whole) {
        return dispatch_bool(n == kTileStreams, [&](auto four) {
          using S = typename decltype(dtype)::type;
          constexpr int kN = decltype(four)::value ? kTileStreams : 0;
          const int values = WarpValues<kTokensAtOnce<S, kN>>::count(n, size);
          LaunchShape shape = plan.owners.launch;
          shape.shared_bytes = kStatsWarps * values * static_cast<int>(sizeof(double));
          return launch(stream_stats_kernel<S, decltype(whole)::value, kN>, shape, stream, args,
                        plan.owners.tokens_per_block, values);
        });
      });
    });
    if (status != Status::kOk) return status;
  }
  return sum_partials<double>(args.partials, plan.owners.partials, size, size, args.stats, stream);
}

}  // namespace hyperstreams::cuda
