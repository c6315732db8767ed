// stream_stats on CUDA: sums over tokens of Gram matrices, shares, entropies and angles.
//
//   stats[k] = sum_t value_k(t)      (the values stand in hyperstreams/stream_stats.h)
//
// A block of 8 warps owns a range of tokens and takes eight at a time, in three steps between
// barriers. (1) A warp owns a token: its lanes share the channels and leave in shared memory the
// products of the token's rows, five rows a pass (y and four streams: one pass up to n = 4), and
// for every stream those with the two tokens before it. (2) Lane i owns stream i: shares, entropy,
// angles. (3) A thread owns a packed value and adds the eight tokens' to its block's row of
// partials, in ascending order. A second kernel adds the rows.
//   (n + 1) C elements and 2n + n n floats per token from memory; the rows of a token are read
//   three times more, from cache, beside the two tokens that follow it. 8 stream_stats_size(n)
//   bytes per block.
//
// Products and sums are double: those of two floats are exact. Deterministic: width and dtype fix
// the order of a token's sums, the number of tokens fixes the ranges.
// 7 kernels (3 dtypes, whole vectors or masked; the sum of the partials); y's dtype is known at run
// time only.
#include "hyperstreams/stream_stats.h"

#include <algorithm>
#include <limits>

#include "device/device.h"
#include "dispatch.h"
#include "hyperstreams/plan.h"
#include "mix_write_branch.h"
#include "owner_sums.h"
#include "sum_partials.h"

namespace hyperstreams::cuda {
namespace {

constexpr int kTile = 5;  // rows of a pass
constexpr int kMaxRows = kMaxStreams + 1;
constexpr int kTokensAtOnce = kOwnerWarps;
constexpr double kLargest = std::numeric_limits<double>::max();

/// Products over the channels of one stream x at this token and the two before it.
enum Motion { kAlong, kSquareBefore, kTurn, kStepSquare, kStepSquareBefore, kMotions };

/// What the warp of a token leaves for the block. Rows and columns are the streams, then y.
struct TokenValues {
  double gram[kMaxRows * kMaxRows];  // [n + 1, n + 1]
  double norm[kMaxRows];
  double motion[kMotions][kMaxStreams];
  double gram_row[kMaxStreams];  // sum over the streams
  double read_share[kMaxStreams], write_share[kMaxStreams];
  double read_entropy[kMaxStreams], write_entropy[kMaxStreams];  // terms of the sum
  double read_signal_share[kMaxStreams], write_signal_share[kMaxStreams];
  double curvature[kMaxStreams], curvature_count[kMaxStreams];
  double position_curvature[kMaxStreams], position_curvature_count[kMaxStreams];
};

struct BlockValues {
  TokenValues token[kTokensAtOnce];
};

__device__ __forceinline__ double ratio(double numerator, double denominator) {
  return denominator == 0 ? 0 : numerator / denominator;
}

/// The coefficients of one token; what is absent reads as the contract has it.
struct TokenCoefficients {
  const float *h_pre, *h_post, *h_res;
  int n;
  __device__ __forceinline__ TokenCoefficients(const StreamStatsArgs& args, int64_t t)
      : h_pre(row(args.h_pre, t)),
        h_post(row(args.h_post, t)),
        h_res(row(args.h_res, t)),
        n(args.n_streams) {}
  static __device__ __forceinline__ const float* row(const RowsView& rows, int64_t t) {
    return rows.data ? static_cast<const float*>(rows.data) + t * rows.token_stride : nullptr;
  }
  __device__ __forceinline__ double read(int i) const { return h_pre ? h_pre[i] : 0; }
  __device__ __forceinline__ double write(int i) const { return h_post ? h_post[i] : 0; }
  __device__ __forceinline__ double mix(int k) const {
    if (h_res) return h_res[k];
    return h_post && k % (n + 1) == 0 ? 1 : 0;
  }
};

/// Channels [c, c + kVector) of the rows first, ..., first + kTile - 1 of token t: row 0 is y, row
/// r stream r - 1; rows beyond them are 0.
template <class S, bool kWhole, int kVector>
__device__ __forceinline__ void load_rows(const StreamStatsArgs& args, int64_t t, int first,
                                          int64_t c, float (&to)[kTile][kVector]) {
  const S* x = static_cast<const S*>(args.x.data) + t * args.x.token_stride + c;
  const int64_t count = args.width - c;
#pragma unroll
  for (int r = 0; r < kTile; ++r) {
    const int i = first + r - 1;
    if (r == 0 && i < 0 && args.y.data) {
      load_branch<kWhole>(args.y_dtype, args.y.data, t * args.y.token_stride + c, nullptr, count,
                          to[r]);
    } else if (i >= 0 && i < args.n_streams) {
      load_floats<kWhole>(x + i * args.x.stream_stride, count, to[r]);
    } else {
#pragma unroll
      for (int k = 0; k < kVector; ++k) to[r][k] = 0;
    }
  }
}

/// Row and column of the k-th product of a tile; kDiagonal: of its upper triangle.
template <bool kDiagonal>
struct TilePlace {
  int i, j;
  __device__ __forceinline__ explicit TilePlace(int k) : i(0), j(k) {
    for (int length = kTile; i < kTile && j >= length; length -= kDiagonal) {
      j -= length;
      ++i;
    }
    if (kDiagonal) j += i;
  }
};

/// Products of the rows from first_a on with those from first_b on; kDiagonal: the same rows.
template <class S, bool kWhole, bool kDiagonal>
__device__ __forceinline__ void add_products(const StreamStatsArgs& args, int64_t t, int first_a,
                                             int first_b, TokenValues& out) {
  constexpr int kVector = Vector<S>::kSize;
  constexpr int kSums = kDiagonal ? 16 : 32;  // of which 15 or 25 are used
  double sum[kSums] = {};
  for (int64_t c = int64_t{lane()} * kVector; c < args.width; c += kWarpThreads * kVector) {
    float a[kTile][kVector], b[kTile][kVector];
    load_rows<S, kWhole>(args, t, first_a, c, a);
    if constexpr (!kDiagonal) load_rows<S, kWhole>(args, t, first_b, c, b);
    int place = 0;
#pragma unroll
    for (int i = 0; i < kTile; ++i) {
#pragma unroll
      for (int j = kDiagonal ? i : 0; j < kTile; ++j) {
#pragma unroll
        for (int k = 0; k < kVector; ++k) {
          const double other = kDiagonal ? a[j][k] : b[j][k];
          sum[place] = fma(static_cast<double>(a[i][k]), other, sum[place]);
        }
        ++place;
      }
    }
  }
  const double product = warp_sums(sum);
  constexpr int kLanesPerSum = kWarpThreads / kSums;
  const TilePlace<kDiagonal> place(lane() / kLanesPerSum);
  const int a = first_a + place.i, b = first_b + place.j, rows = args.n_streams + 1;
  if (lane() % kLanesPerSum != 0 || place.i >= kTile || a >= rows || b >= rows) return;
  const int row = a == 0 ? args.n_streams : a - 1, column = b == 0 ? args.n_streams : b - 1;
  out.gram[row * rows + column] = product;
  out.gram[column * rows + row] = product;
  if (row == column) out.norm[row] = sqrt(product);
}

/// Products with the one or two tokens before t, which is at this position of its sequence.
template <class S, bool kWhole>
__device__ __forceinline__ void add_motions(const StreamStatsArgs& args, int64_t t,
                                            int64_t position, TokenValues& out) {
  constexpr int kVector = Vector<S>::kSize;
  constexpr int kLanesPerSum = 4;
  for (int i = 0; i < args.n_streams; ++i) {
    const S* x =
        static_cast<const S*>(args.x.data) + t * args.x.token_stride + i * args.x.stream_stride;
    double sum[kWarpThreads / kLanesPerSum] = {};
    for (int64_t c = int64_t{lane()} * kVector; c < args.width; c += kWarpThreads * kVector) {
      float now[kVector], before[kVector], first[kVector];
      load_floats<kWhole>(x + c, args.width - c, now);
      load_floats<kWhole>(x + c - args.x.token_stride, args.width - c, before);
      if (position >= 2) {
        load_floats<kWhole>(x + c - 2 * args.x.token_stride, args.width - c, first);
      }
#pragma unroll
      for (int k = 0; k < kVector; ++k) {
        const double value = now[k], last = before[k];
        sum[kAlong] = fma(value, last, sum[kAlong]);
        sum[kSquareBefore] = fma(last, last, sum[kSquareBefore]);
        if (position >= 2) {
          const double step = value - last, step_before = last - first[k];
          sum[kTurn] = fma(step, step_before, sum[kTurn]);
          sum[kStepSquare] = fma(step, step, sum[kStepSquare]);
          sum[kStepSquareBefore] = fma(step_before, step_before, sum[kStepSquareBefore]);
        }
      }
    }
    const double product = warp_sums(sum);
    const int k = lane() / kLanesPerSum;
    if (lane() % kLanesPerSum == 0 && k < kMotions) out.motion[k][i] = product;
  }
}

/// The angle between vectors of squared norms a and b with this inner product, where both count.
__device__ __forceinline__ void set_angle(double dot, double a, double b, double& angle,
                                          double& count) {
  count = a > 0 && b > 0 && a <= kLargest && b <= kLargest ? 1 : 0;
  if (count == 0) {
    angle = 0;
    return;
  }
  const double cosine = dot / (sqrt(a) * sqrt(b));
  angle = acos(cosine > 1 ? 1 : cosine < -1 ? -1 : cosine);
}

/// What stream i of a token gives, from the products and its coefficients h.
__device__ __forceinline__ void describe_stream(const TokenCoefficients& h, int64_t position, int i,
                                                TokenValues& out) {
  const int n = h.n, rows = n + 1;
  double read = 0, write = 0, read_signal = 0, write_signal = 0, row = 0;
  for (int k = 0; k < n; ++k) {
    read += fabs(h.read(k));
    write += fabs(h.write(k));
    read_signal += fabs(h.read(k)) * out.norm[k];
    write_signal += h.write(k) * h.write(k);
    row += out.gram[i * rows + k];
  }
  const double p = fabs(h.read(i)), q = fabs(h.write(i));
  const double read_share = ratio(p, read), write_share = ratio(q, write);
  out.gram_row[i] = row;
  out.read_share[i] = read_share;
  out.write_share[i] = write_share;
  out.read_entropy[i] = read_share == 0 ? 0 : -read_share * log(read_share);
  out.write_entropy[i] = write_share == 0 ? 0 : -write_share * log(write_share);
  out.read_signal_share[i] = ratio(p * out.norm[i], read_signal);
  out.write_signal_share[i] = ratio(q * q, write_signal);
  out.curvature[i] = out.curvature_count[i] = 0;
  out.position_curvature[i] = out.position_curvature_count[i] = 0;
  if (position >= 1) {
    set_angle(out.motion[kAlong][i], out.motion[kSquareBefore][i], out.gram[i * rows + i],
              out.position_curvature[i], out.position_curvature_count[i]);
  }
  if (position >= 2) {
    set_angle(out.motion[kTurn][i], out.motion[kStepSquareBefore][i], out.motion[kStepSquare][i],
              out.curvature[i], out.curvature_count[i]);
  }
}

/// Adds values of some tokens to a row of partials, field after field; each packed value belongs to
/// one thread.
struct PackedSums {
  double* row;
  int tokens;
  bool is_first;
  int begin = 0;

  /// The next `count` packed values; value(w, k): the k-th of the w-th token.
  template <class F>
  __device__ __forceinline__ void add(int count, const F& value) {
    for (int k = (threadIdx.x + kOwnerThreads - begin % kOwnerThreads) % kOwnerThreads; k < count;
         k += kOwnerThreads) {
      double sum = 0;
      for (int w = 0; w < tokens; ++w) sum += value(w, k);
      row[begin + k] = is_first ? sum : row[begin + k] + sum;
    }
    begin += count;
  }
};

/// All fields, in the order of the contract, of the tokens from t on.
__device__ __forceinline__ void add_fields(const StreamStatsArgs& args, int64_t t,
                                           const TokenValues* of, PackedSums sums) {
  const int n = args.n_streams, rows = n + 1;
  const auto h = [&](int w) { return TokenCoefficients(args, t + w); };
  sums.add(1, [&](int, int) { return 1.0; });
  sums.add(n, [&](int w, int i) { return h(w).read(i); });
  sums.add(n, [&](int w, int i) { return h(w).write(i); });
  sums.add(n * n, [&](int w, int k) { return h(w).mix(k); });
  sums.add(n * n, [&](int w, int k) { return h(w).mix(k) * h(w).mix(k); });
  sums.add(n, [&](int w, int i) { return of[w].read_share[i]; });
  sums.add(n, [&](int w, int i) { return of[w].write_share[i]; });
  const auto total = [&](const double* terms) {
    double sum = 0;
    for (int i = 0; i < n; ++i) sum += terms[i];
    return sum;
  };
  sums.add(1, [&](int w, int) { return total(of[w].read_entropy); });
  sums.add(1, [&](int w, int) { return total(of[w].write_entropy); });
  sums.add(n, [&](int w, int i) { return of[w].read_signal_share[i]; });
  sums.add(n, [&](int w, int i) { return of[w].write_signal_share[i]; });
  sums.add(rows * rows, [&](int w, int k) { return of[w].gram[k]; });
  sums.add(rows, [&](int w, int i) { return of[w].norm[i]; });
  sums.add(n * n, [&](int w, int k) {
    const int i = k / n, j = k % n;
    return ratio(of[w].gram[i * rows + j], of[w].norm[i] * of[w].norm[j]);
  });
  sums.add(1, [&](int w, int) {
    double energy = 0;
    for (int i = 0; i < n; ++i) energy += of[w].gram[i * rows + i];
    return ratio(energy - total(of[w].gram_row) / n, energy);
  });
  sums.add(n, [&](int w, int i) { return of[w].curvature[i]; });
  sums.add(n, [&](int w, int i) { return of[w].curvature_count[i]; });
  sums.add(n, [&](int w, int i) { return of[w].position_curvature[i]; });
  sums.add(n, [&](int w, int i) { return of[w].position_curvature_count[i]; });
}

template <class S, bool kWhole>
__global__ void __launch_bounds__(kOwnerThreads, kBlocksPerMultiprocessor)
    stream_stats_kernel(const __grid_constant__ StreamStatsArgs args, int64_t tokens_per_block,
                        int size) {
  auto& block = shared<BlockValues>();
  const int n = args.n_streams, warp = threadIdx.x / kWarpThreads;
  const int64_t first = blockIdx.x * tokens_per_block;
  const int64_t end =
      first + tokens_per_block < args.tokens ? first + tokens_per_block : args.tokens;
  double* partial = args.partials + int64_t{blockIdx.x} * size;
  TokenValues& own = block.token[warp];
  for (int64_t begin = first; begin < end; begin += kTokensAtOnce) {
    const int64_t t = begin + warp, position = t % args.sequence;
    if (t < end) {
      for (int a = 0; a <= n; a += kTile) {
        add_products<S, kWhole, true>(args, t, a, a, own);
        for (int b = a + kTile; b <= n; b += kTile) {
          add_products<S, kWhole, false>(args, t, a, b, own);
        }
      }
      if (position >= 1) add_motions<S, kWhole>(args, t, position, own);
    }
    block_barrier();
    if (t < end && lane() < n) {
      describe_stream(TokenCoefficients(args, t), position, lane(), own);
    }
    block_barrier();
    const int tokens = end - begin < kTokensAtOnce ? static_cast<int>(end - begin) : kTokensAtOnce;
    add_fields(args, begin, block.token, {partial, tokens, begin == first});
    block_barrier();
  }
}

}  // namespace

Status stream_stats(const StreamStatsArgs& args, Stream stream) {
  if (args.dtype == DType::kFloat64 || args.y_dtype == DType::kFloat64) {
    return Status::kUnsupportedDType;
  }
  const int64_t alignment = std::min(row_alignment(args.x, args.tokens, args.n_streams, args.dtype),
                                     row_alignment(args.y, args.tokens, args.y_dtype));
  const StreamStatsPlan plan = plan_stream_stats(args.tokens, args.width, args.dtype, alignment);
  const int size = static_cast<int>(stream_stats_size(args.n_streams));
  if (args.tokens > 0) {
    const Status status = dispatch_dtype(args.dtype, [&](auto dtype) {
      return dispatch_bool(plan.whole_vectors, [&](auto whole) {
        using S = typename decltype(dtype)::type;
        return launch(stream_stats_kernel<S, decltype(whole)::value>, plan.owners.launch, stream,
                      args, plan.owners.tokens_per_block, size);
      });
    });
    if (status != Status::kOk) return status;
  }
  return sum_partials<double>(args.partials, plan.owners.partials, size, size, args.stats, stream);
}

}  // namespace hyperstreams::cuda
