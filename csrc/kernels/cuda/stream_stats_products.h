// The products of stream_stats: a warp sums over the channels of one token, or of two neighbours,
// in double; those of two floats are exact.
#pragma once

#include "device/device.h"
#include "hyperstreams/stream_stats.h"
#include "mix_write_branch.h"

namespace hyperstreams::cuda {

constexpr int kTile = 5;  // rows of a pass
constexpr int kTileProducts = kTile * (kTile + 1) / 2;
constexpr int kTileStreams = kTile - 1;  // of a tile that y begins
constexpr int kStatsChannels = 4;        // of a lane at a time

/// Where the packed values lie, in the order of the contract.
struct StatsLayout {
  int n, rows;
  int h_pre, h_post, h_res, h_res_square, read_share, write_share, read_entropy, write_entropy;
  int read_signal, write_signal, gram, norm, cosine, energy;
  int curvature, curvature_count, position_curvature, position_curvature_count, size;
  __device__ __forceinline__ explicit StatsLayout(int streams) : n(streams), rows(streams + 1) {
    h_pre = 1;
    h_post = h_pre + n;
    h_res = h_post + n;
    h_res_square = h_res + n * n;
    read_share = h_res_square + n * n;
    write_share = read_share + n;
    read_entropy = write_share + n;
    write_entropy = read_entropy + 1;
    read_signal = write_entropy + 1;
    write_signal = read_signal + n;
    gram = write_signal + n;
    norm = gram + rows * rows;
    cosine = norm + rows;
    energy = cosine + n * n;
    curvature = energy + 1;
    curvature_count = curvature + n;
    position_curvature = curvature_count + n;
    position_curvature_count = position_curvature + n;
    size = position_curvature_count + n;
  }

  /// A product of rows of [y; x] of one token, and its transpose; the diagonal's root.
  __device__ __forceinline__ void set_product(double* packed, int a, int b, double product) const {
    if (a >= rows || b >= rows) return;
    const int row = a == 0 ? n : a - 1, column = b == 0 ? n : b - 1;
    packed[gram + row * rows + column] = product;
    packed[gram + column * rows + row] = product;
    if (row == column) packed[norm + row] = sqrt(product);
  }
  __device__ __forceinline__ double square(const double* packed, int i) const {
    return packed[gram + i * (rows + 1)];
  }
};

/// Products of every stream along the tokens t, ..., t + kTokens - 1 of a warp: of x with x of the
/// token before, of a step (x minus x of the token before) with the step before, and the squares of
/// what lies before t. In shared memory, `stride` streams.
template <int kTokens>
struct Motions {
  static constexpr int kRows = 3 * kTokens + 2;
  double* value;  // [kRows, stride]
  int stride;

  __device__ __forceinline__ double along(int token, int i) const {
    return value[token * stride + i];
  }
  __device__ __forceinline__ double turn(int token, int i) const {
    return value[(kTokens + token) * stride + i];
  }
  /// |x|^2 at t - 1.
  __device__ __forceinline__ double square_before(int i) const {
    return value[2 * kTokens * stride + i];
  }
  /// Of the step to token t - 1, t, ...
  __device__ __forceinline__ double step_square(int step, int i) const {
    return value[(2 * kTokens + 1 + step) * stride + i];
  }
};

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

template <class S>
__device__ __forceinline__ const S* stream_of(const StreamStatsArgs& args, int64_t t, int i) {
  return static_cast<const S*>(args.x.data) + t * args.x.token_stride + i * args.x.stream_stride;
}

/// Four streams of token t; zeros without the token.
template <class S, bool kWhole>
__device__ __forceinline__ void load_streams(const StreamStatsArgs& args, int64_t t, bool exists,
                                             int64_t c,
                                             Packed<S, kStatsChannels> (&to)[kTileStreams]) {
#pragma unroll
  for (int i = 0; i < kTileStreams; ++i) to[i] = {};
  if (!exists) return;
#pragma unroll
  for (int i = 0; i < kTileStreams; ++i) {
    to[i] =
        packed(load_vector<kWhole, kStatsChannels>(stream_of<S>(args, t, i) + c, args.width - c));
  }
}

template <bool kWhole>
__device__ __forceinline__ void load_y(const StreamStatsArgs& args, int64_t t, bool exists,
                                       int64_t c, float (&to)[kStatsChannels]) {
#pragma unroll
  for (int k = 0; k < kStatsChannels; ++k) to[k] = 0;
  if (!exists || !args.y.data) return;
  load_branch<kWhole>(args.y_dtype, args.y.data, t * args.y.token_stride + c, nullptr,
                      args.width - c, to);
}

/// All products of tokens [t, t + tokens) of four streams, the first being at `position` of
/// its sequence, in one walk. packed: [kTokens, size].
template <class S, bool kWhole, int kTokens>
__device__ __forceinline__ void add_four_streams(const StreamStatsArgs& args,
                                                 const StatsLayout& layout, int64_t t, int tokens,
                                                 int64_t position, double* packed,
                                                 const Motions<kTokens>& motions) {
  constexpr int kWindow = kTokens + 2;  // from token t - 2 on
  constexpr int kGrams = kTokens * kTileProducts;
  constexpr int kSums = kGrams + Motions<kTokens>::kRows * kTileStreams;
  constexpr int kRest = kSums - kWarpThreads <= 4 ? 4 : kWarpThreads;
  static_assert(kSums > kWarpThreads && kSums <= kWarpThreads + kRest, "two exchanges");
  double sum[kWarpThreads + kRest] = {};
  for (int64_t c = int64_t{lane()} * kStatsChannels; c < args.width;
       c += kWarpThreads * kStatsChannels) {
    Packed<S, kStatsChannels> x[kWindow][kTileStreams];
    float y[kTokens][kStatsChannels];
#pragma unroll
    for (int w = 0; w < kWindow; ++w) {
      load_streams<S, kWhole>(args, t + w - 2, w < 2 ? position >= 2 - w : w - 2 < tokens, c, x[w]);
    }
#pragma unroll
    for (int token = 0; token < kTokens; ++token) {
      load_y<kWhole>(args, t + token, token < tokens, c, y[token]);
    }
#pragma unroll
    for (int k = 0; k < kStatsChannels; ++k) {
      double row[kWindow][kTile];  // y, then the streams
#pragma unroll
      for (int w = 0; w < kWindow; ++w) {
        if (w >= 2) row[w][0] = y[w - 2][k];
#pragma unroll
        for (int i = 0; i < kTileStreams; ++i) row[w][1 + i] = x[w][i][k];
      }
#pragma unroll
      for (int token = 0; token < kTokens; ++token) {
        int at = token * kTileProducts;
#pragma unroll
        for (int i = 0; i < kTile; ++i) {
#pragma unroll
          for (int j = i; j < kTile; ++j) {
            sum[at] = fma(row[token + 2][i], row[token + 2][j], sum[at]);
            ++at;
          }
        }
      }
#pragma unroll
      for (int i = 0; i < kTileStreams; ++i) {
        double step[kTokens + 1];
#pragma unroll
        for (int w = 0; w <= kTokens; ++w) step[w] = row[w + 1][1 + i] - row[w][1 + i];
        const auto add = [&](int motion, double a, double b) {
          double& to = sum[kGrams + motion * kTileStreams + i];
          to = fma(a, b, to);
        };
#pragma unroll
        for (int token = 0; token < kTokens; ++token) {
          add(token, row[token + 2][1 + i], row[token + 1][1 + i]);
          add(kTokens + token, step[token + 1], step[token]);
        }
        add(2 * kTokens, row[1][1 + i], row[1][1 + i]);
#pragma unroll
        for (int w = 0; w <= kTokens; ++w) add(2 * kTokens + 1 + w, step[w], step[w]);
      }
    }
  }
  const auto put = [&](int k, double value) {
    if (k >= kSums) return;
    if (k >= kGrams) {
      motions.value[k - kGrams] = value;
      return;
    }
    const TilePlace<true> place(k % kTileProducts);
    layout.set_product(packed + k / kTileProducts * layout.size, place.i, place.j, value);
  };
  double first[kWarpThreads], rest[kRest];
#pragma unroll
  for (int k = 0; k < kWarpThreads; ++k) first[k] = sum[k];
#pragma unroll
  for (int k = 0; k < kRest; ++k) rest[k] = sum[kWarpThreads + k];
  put(lane(), warp_sums(first));
  const double value = warp_sums(rest);
  if (lane() % (kWarpThreads / kRest) == 0) {
    put(kWarpThreads + lane() / (kWarpThreads / kRest), value);
  }
}

/// Channels [c, c + kStatsChannels) of the rows first, ..., first + kTile - 1 of token t: row 0 is
/// y, row r stream r - 1; rows beyond them are 0.
template <class S, bool kWhole>
__device__ __forceinline__ void load_rows(const StreamStatsArgs& args, int64_t t, int first,
                                          int64_t c, float (&to)[kTile][kStatsChannels]) {
#pragma unroll
  for (int r = 0; r < kTile; ++r) {
    const int i = first + r - 1;
    if (r == 0 && i < 0) {
      load_y<kWhole>(args, t, true, c, to[r]);
    } else if (i < args.n_streams) {
      load_floats<kWhole>(stream_of<S>(args, t, i) + c, args.width - c, to[r]);
    } else {
#pragma unroll
      for (int k = 0; k < kStatsChannels; ++k) to[r][k] = 0;
    }
  }
}

/// Products of the rows from first_a on with those from first_b on; kDiagonal: the same rows.
template <class S, bool kWhole, bool kDiagonal>
__device__ __forceinline__ void add_products(const StreamStatsArgs& args, const StatsLayout& layout,
                                             int64_t t, int first_a, int first_b, double* packed) {
  constexpr int kSums = kDiagonal ? 16 : 32;  // of which 15 or 25 are used
  double sum[kSums] = {};
  for (int64_t c = int64_t{lane()} * kStatsChannels; c < args.width;
       c += kWarpThreads * kStatsChannels) {
    float a[kTile][kStatsChannels], b[kTile][kStatsChannels];
    load_rows<S, kWhole>(args, t, first_a, c, a);
    if constexpr (!kDiagonal) load_rows<S, kWhole>(args, t, first_b, c, b);
    int place = 0;
#pragma unroll
    for (int i = 0; i < kTile; ++i) {
#pragma unroll
      for (int j = kDiagonal ? i : 0; j < kTile; ++j) {
#pragma unroll
        for (int k = 0; k < kStatsChannels; ++k) {
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
  if (lane() % kLanesPerSum != 0 || place.i >= kTile) return;
  layout.set_product(packed, first_a + place.i, first_b + place.j, product);
}

/// Products with the one or two tokens before t, which is at this position of its sequence.
template <class S, bool kWhole>
__device__ __forceinline__ void add_motions(const StreamStatsArgs& args, int64_t t,
                                            int64_t position, const Motions<1>& motions) {
  constexpr int kLanesPerSum = 4;
  for (int i = 0; i < args.n_streams; ++i) {
    double sum[kWarpThreads / kLanesPerSum] = {};
    for (int64_t c = int64_t{lane()} * kStatsChannels; c < args.width;
         c += kWarpThreads * kStatsChannels) {
      float now[kStatsChannels], before[kStatsChannels], first[kStatsChannels] = {};
      const S* x = stream_of<S>(args, t, i) + c;
      load_floats<kWhole>(x, args.width - c, now);
      load_floats<kWhole>(x - args.x.token_stride, args.width - c, before);
      if (position >= 2) load_floats<kWhole>(x - 2 * args.x.token_stride, args.width - c, first);
#pragma unroll
      for (int k = 0; k < kStatsChannels; ++k) {
        const double value = now[k], last = before[k];
        const double step = value - last, step_before = last - first[k];
        sum[0] = fma(value, last, sum[0]);
        sum[1] = fma(step, step_before, sum[1]);
        sum[2] = fma(last, last, sum[2]);
        sum[3] = fma(step_before, step_before, sum[3]);
        sum[4] = fma(step, step, sum[4]);
      }
    }
    const double product = warp_sums(sum);
    const int k = lane() / kLanesPerSum;
    if (lane() % kLanesPerSum == 0 && k < Motions<1>::kRows) {
      motions.value[k * motions.stride + i] = product;
    }
  }
}

}  // namespace hyperstreams::cuda
