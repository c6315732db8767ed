// A tile of 32 tokens of coefficients, n = kN <= 4, by a block of 8 warps.
//
// In the activation stage and its adjoint lane k of a warp has joint logit k, K <= 32, of the
// warp's 4 tokens: what belongs to a logit is found once, rows are read and written along, and sums
// over tokens stay in the lane. In between what the map is given, or gives, lies in shared memory,
// and the map runs by token: a thread each, or a quad of lanes for sinkhorn.
#pragma once

#include "coefficient_maps.h"
#include "coefficient_token.h"
#include "device/device.h"
#include "project_statistic.h"
#include "sinkhorn_quad_logarithmic.h"

namespace hyperstreams::cuda {

constexpr int kTileThreads = 256;
constexpr int kTileTokens = 32;
constexpr int kTileWarps = kTileThreads / kWarpThreads;
constexpr int kWarpTokens = kTileTokens / kTileWarps;

struct TileStorage {
  float value[kTileTokens][kWarpThreads + 1];  // by token and logit
};

/// This block's tiles, in strides of the grid.
struct TokenTile {
  int64_t first, tokens;

  __device__ __forceinline__ explicit TokenTile(int64_t token_count)
      : first(int64_t{blockIdx.x} * kTileTokens), tokens(token_count) {}
  __device__ __forceinline__ bool exists() const { return first < tokens; }
  __device__ __forceinline__ void advance() { first += int64_t{gridDim.x} * kTileTokens; }

  /// Place in the tile of token j of this warp.
  __device__ __forceinline__ int slot(int j) const {
    return static_cast<int>(threadIdx.x) / kWarpThreads * kWarpTokens + j;
  }
  __device__ __forceinline__ bool has(int slot) const { return first + slot < tokens; }
  /// Of a slot; the last token for one that has none.
  __device__ __forceinline__ int64_t token(int slot) const {
    return has(slot) ? first + slot : tokens - 1;
  }
};

/// The joint logit of this lane; lanes beyond the last have a copy of it.
template <int kN>
struct LaneLogit {
  bool exists;
  int k, stream, place;  // stream: 0 unless per_stream, and this lane's; place: in the token's row
  LogitActivation activation;

  __device__ __forceinline__ LaneLogit(const CoefficientSettings& s, const void* alpha,
                                       const void* bias, int mix_count) {
    const int count = 2 * kN + mix_count;
    exists = lane() < count;
    k = exists ? lane() : count - 1;
    stream = s.per_stream ? lane() % kN : 0;
    place = logit_place(s, kN, k);
    int group = k < kN ? 0 : 1;
    if (k >= 2 * kN) group = MixGroups(s).at(k - 2 * kN);
    activation.start(k < kN       ? s.read
                     : k < 2 * kN ? s.write
                                  : s.mix,
                     static_cast<const float*>(alpha)[group], static_cast<const float*>(bias)[k]);
  }
};

/// This lane's logit of the warp's tokens, and the inverse rms that belongs to it.
struct LaneRows {
  float logit[kWarpTokens], rms[kWarpTokens];

  template <int kN, class Args>
  __device__ __forceinline__ void load(const Args& args, const TokenTile& tile,
                                       const LaneLogit<kN>& lane_logit) {
#pragma unroll
    for (int j = 0; j < kWarpTokens; ++j) {
      const int64_t t = tile.token(tile.slot(j));
      logit[j] = static_cast<const float*>(
          args.logits.data)[t * args.logits.token_stride + lane_logit.place];
      rms[j] = args.inv_rms.data
                   ? static_cast<const float*>(
                         args.inv_rms.data)[t * args.inv_rms.token_stride + lane_logit.stream]
                   : 1;
    }
  }

  /// From parts, in ascending order; writes what they add up to.
  template <int kN>
  __device__ __forceinline__ void add(const LogitParts& parts, const CoefficientSettings& s,
                                      const TokenTile& tile, const LaneLogit<kN>& lane_logit) {
    const int per_token = s.per_stream ? kN : 1, count = parts.count;
    const int column = s.per_stream ? lane_logit.k / kN : lane_logit.k;
    const int64_t part_size = tile.tokens * per_token * (count + 1);
    const float *of_logit[kWarpTokens], *of_square[kWarpTokens];
    float squares[kWarpTokens] = {};
#pragma unroll
    for (int j = 0; j < kWarpTokens; ++j) {
      const int64_t row = tile.token(tile.slot(j)) * per_token + lane_logit.stream;
      of_logit[j] = parts.sums + row * (count + 1) + column;
      of_square[j] = parts.sums + row * (count + 1) + count;
      logit[j] = 0;
    }
    // Several in flight.
    constexpr int kAtOnce = 4;
#pragma unroll 1
    for (int64_t first = 0; first < parts.parts; first += kAtOnce) {
      float part[kAtOnce][kWarpTokens][2] = {};
#pragma unroll
      for (int q = 0; q < kAtOnce; ++q) {
        if (first + q < parts.parts) {
          const int64_t at = (first + q) * part_size;
#pragma unroll
          for (int j = 0; j < kWarpTokens; ++j) {
            part[q][j][0] = of_logit[j][at];
            part[q][j][1] = of_square[j][at];
          }
        }
      }
#pragma unroll
      for (int q = 0; q < kAtOnce; ++q) {
#pragma unroll
        for (int j = 0; j < kWarpTokens; ++j) {
          logit[j] += part[q][j][0];
          squares[j] += part[q][j][1];
        }
      }
    }
    // Of each token and stream by one of 8 lanes.
    constexpr int kLanes = kWarpThreads / kWarpTokens;
    static_assert(kN <= kLanes, "a lane for every stream");
    const int own = lane() / kLanes;
    float square = squares[0];
#pragma unroll
    for (int j = 1; j < kWarpTokens; ++j) square = own == j ? squares[j] : square;
    const float of_own = inverse_rms(square / parts.features, parts.eps, parts.eps_position);
#pragma unroll
    for (int j = 0; j < kWarpTokens; ++j) {
      // The lane of token j's own that has this lane's stream.
      const int source =
          s.per_stream ? j * kLanes + (lane_logit.stream + kWarpThreads * kN - j * kLanes) % kN
                       : j * kLanes;
      rms[j] = warp_shuffle(of_own, source);
      if (!tile.has(tile.slot(j))) continue;
      const int64_t row = (tile.first + tile.slot(j)) * per_token + lane_logit.stream;
      if (lane_logit.exists) parts.logits[row * count + column] = logit[j];
      if (lane() < per_token) parts.inv_rms[row] = rms[j];
    }
  }
};

/// Memory for what the map keeps of the tile, `kept` numbers of every token, if any.
__device__ __forceinline__ float* tile_scratch(const CoefficientsPass& pass, void* scratch,
                                               int64_t kept) {
  return pass.keeps_in_shared
             ? dynamic_shared<float>()
             : static_cast<float*>(scratch) + int64_t{blockIdx.x} * kTileTokens * kept;
}

/// How the map runs for the tokens of a tile: a thread each, which keeps nothing.
template <class Map, int kN>
struct TileMap {
  static constexpr int kMix = CoefficientSizes<kN>::kMix;

  const MapSettings& settings;
  const TokenTile& tile;
  TileStorage& storage;

  __device__ __forceinline__ void forward(float* h_res) const {
    const int slot = static_cast<int>(threadIdx.x);
    if (slot >= kTileTokens || !tile.has(slot)) return;
    float mix[kMix];
    load(slot, mix);
    Map::template forward<kN, float>(settings, kN, mix, h_res + (tile.first + slot) * kN * kN,
                                     StridedScratch{nullptr, 0});
  }

  /// The gradient replaces what the map was given.
  __device__ __forceinline__ void backward(const RowsView& grad_h_res, int mix_count,
                                           float*) const {
    const int slot = static_cast<int>(threadIdx.x);
    if (slot >= kTileTokens || !tile.has(slot)) return;
    float mix[kMix], grad_mix[kMix];
    load(slot, mix);
    Map::template backward<kN, float>(
        settings, kN, mix,
        static_cast<const float*>(grad_h_res.data) + (tile.first + slot) * grad_h_res.token_stride,
        grad_mix, StridedScratch{nullptr, 0});
#pragma unroll
    for (int m = 0; m < kMix; ++m) {
      if (m < mix_count) storage.value[slot][2 * kN + m] = grad_mix[m];
    }
  }

 private:
  __device__ __forceinline__ void load(int slot, float (&mix)[kMix]) const {
    static_assert(2 * kN + kMix <= kWarpThreads, "a lane for every logit");
#pragma unroll
    for (int m = 0; m < kMix; ++m) mix[m] = storage.value[slot][2 * kN + m];
  }
};

/// sinkhorn: 4 lanes each.
template <int kN>
struct TileMap<maps::Sinkhorn, kN> {
  const MapSettings& settings;
  const TokenTile& tile;
  TileStorage& storage;

  __device__ __forceinline__ void forward(float* h_res) const {
    if (!warp_takes_part()) return;
    const int slot = this->slot();
    SinkhornQuad<kN>(settings, &storage.value[slot][2 * kN])
        .forward(tile.has(slot), h_res + tile.token(slot) * kN * kN);
  }

  __device__ __forceinline__ void backward(const RowsView& grad_h_res, int, float* kept) const {
    if (!warp_takes_part()) return;
    const int slot = this->slot();
    float* mix = &storage.value[slot][2 * kN];
    SinkhornQuad<kN> quad(settings, mix);
    const auto grad = quad.load_gradient(static_cast<const float*>(grad_h_res.data) +
                                         tile.token(slot) * grad_h_res.token_stride);
    quad.backward(grad, kept + slot * kN + lane() % kQuad, kTileTokens * kN, mix);
  }

 private:
  __device__ __forceinline__ static int slot() { return static_cast<int>(threadIdx.x) / kQuad; }
  __device__ __forceinline__ bool warp_takes_part() const {
    const int first_of_warp = static_cast<int>(threadIdx.x) / kWarpThreads * kWarpThreads / kQuad;
    return first_of_warp < kTileTokens && tile.has(first_of_warp);
  }
};

}  // namespace hyperstreams::cuda
