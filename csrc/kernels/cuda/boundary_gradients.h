// The second kernel of boundary's backward, as a template; compiled by
// boundary_gradients_<dtype>.cu. With X' rebuilt from X and y,
//
//   G[t, j, c] = grad_x'[t, j, c] + weights[t, j] grad_u[t, c] + s[t] X'[t, j, c]
//              + sum_k grad_logits[t, k] W[k, j C + c]
//
// and then mix_write's adjoint of G: grad_x, grad_y, sums over channels for grad_h_res and
// grad_h_post, sums over tokens for grad_bias; and sum_t grad_logits[t, k] X'[t, d] for grad_phi,
// grad_u . X' where the read's weights were given.
//
// Block (slab, part): 128 channels of all n <= 4 streams, a range of tokens, 16 at a time. A warp
// has 16 channels; lane 4g + q holds channels 4q to 4q + 3 of tokens g and g + 8, the elements that
// the matrix instruction gives it of the product with W, so G stays in registers. The same
// registers, transposed in 8 x 8 pieces within the warp, are the operand of grad_phi, whose sums
// stay in shared memory, each with the thread that adds to it, for all tokens of the part.
//   (3n + 3) C elements, K + n n + 2n floats per token, and n n + 2n floats per token and slab; K D
//   floats per part; W once per block from the nearest cache.
//
// Products are of bfloat16 pieces: two of grad_logits and W (relative error 2^-16) for 16-bit
// streams, whose gradients are rounded to 2^-9 or 2^-12, three for float. The tensor core adds
// those of one group of tokens alone, since it cuts every sum towards zero.
//
// Deterministic: every sum has one order, which tokens, n, width and dtype fix.
#pragma once

#include "boundary_fragments.h"
#include "boundary_kernels.h"
#include "boundary_matrix.h"
#include "boundary_state.h"
#include "skinny_product.h"

namespace hyperstreams::cuda {

/// What a block keeps: of 16 tokens' sums by warp, twice, so that one barrier is enough; and every
/// thread's own sums of grad_phi, which are used in one place alone.
template <int kPadded, int kMatrices>
struct GradientStorage {
  float sum[2][kSlabWarps][kGroupTokens][kPadded];
  float4 phi[kMatrices][kSlabThreads];
};

template <class S, int kN, int kTiles, bool kWhole>
class GradientWarp {
 public:
  static constexpr int kPieceCount = kGradientPieces<S>;
  static constexpr int kSums = boundary_sums(kN);
  static constexpr int kPadded = (kSums + 3) / 4 * 4;
  using Storage = GradientStorage<kPadded, kN * kTiles>;

  __device__ __forceinline__ GradientWarp(const BoundaryGradientsArgs& args, Storage& storage)
      : args_(args), storage_(storage), g_(lane() / 4), q_(lane() % 4) {
    for (int k = 0; k < kN * kTiles; ++k) storage_.phi[k][threadIdx.x] = {0, 0, 0, 0};
    block_ = int64_t{blockIdx.x} * kSlabWarps + threadIdx.x / kWarpThreads;
    c_ = block_ * kWarpChannels + q_ * kQuadChannels;
  }

  /// Tokens [first, first + 16): everything but the sums over channels, whose parts go to `sums`
  /// [16][kPadded].
  __device__ __forceinline__ void group(int64_t first, float (&sums)[kGroupTokens][kPadded]) {
    const int64_t t = first + g_, t8 = t + 8;
    float product[kN][2][4] = {};
    uint32_t state[kN][kPieces<S>][4];
    if constexpr (sizeof(S) == 2) {  // registers enough to load all at once
      TokenRow row, row8;
      load(t, row);
      load(t8, row8);
      add_weights(first, product);
      complete<0>(t, row, product, state, sums[g_]);
      complete<1>(t8, row8, product, state, sums[g_ + 8]);
    } else {
      add_weights(first, product);
      TokenRow row;
      load(t, row);
      complete<0>(t, row, product, state, sums[g_]);
      load(t8, row);
      complete<1>(t8, row, product, state, sums[g_ + 8]);
    }
    add_phi(first, state);
  }

  /// The sums over tokens, after the last group.
  __device__ __forceinline__ void finish() {
    if (args_.bias_partials) write_bias();
    if (args_.n_logits == 0) return;
    const int64_t width = args_.state.width;
    const int64_t streams = args_.per_stream ? 1 : kN;
    float* partial = args_.phi_partials + blockIdx.y * args_.n_logits * streams * width;
#pragma unroll
    for (int j = 0; j < kN; ++j) {
      if (args_.per_stream && j > 0) continue;
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        float sum[4];
        load_phi(j, tile, sum);
        for (int i = 1; args_.per_stream && i < kN; ++i) {
          float more[4];
          load_phi(i, tile, more);
#pragma unroll
          for (int k = 0; k < 4; ++k) sum[k] += more[k];
        }
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const int64_t c = block_ * kWarpChannels + matrix_channel(g_, k / 2);
          const int logit = tile * kTileLogits + 2 * q_ + k % 2;
          if (c >= width || logit >= args_.n_logits) continue;
          partial[(logit * streams + j) * width + c] = sum[k];
        }
      }
    }
  }

 private:
  /// A logit's gradient; 0 for tokens and logits that do not exist. Per stream, of stream j.
  __device__ __forceinline__ float grad_logit(int64_t t, int j, int logit) const {
    if (t >= args_.state.tokens || logit >= args_.n_logits) return 0;
    return args_.grad_logits[(args_.per_stream ? t * kN + j : t) * args_.n_logits + logit];
  }

  /// gradient += grad_logits W.
  __device__ __forceinline__ void add_weights(int64_t first, float (&gradient)[kN][2][4]) const {
    const int steps = (args_.n_logits + kInnerLogits - 1) / kInnerLogits;
    for (int step = 0; step < steps; ++step) {
      uint32_t a[kPieceCount][4];
#pragma unroll
      for (int j = 0; j < kN; ++j) {
        if (j == 0 || args_.per_stream) {
#pragma unroll
          for (int k = 0; k < 4; ++k) {
            const int64_t t = first + g_ + k % 2 * 8;
            const int logit = step * kInnerLogits + 2 * q_ + k / 2 * 8;
            uint32_t pair[kPieceCount];
            split(grad_logit(t, j, logit), grad_logit(t, j, logit + 1), pair);
#pragma unroll
            for (int p = 0; p < kPieceCount; ++p) a[p][k] = pair[p];
          }
        }
        const int64_t from = args_.per_stream ? gradient_fragment(block_, 1, 0, steps, step)
                                              : gradient_fragment(block_, kN, j, steps, step);
        uint32_t b[2][kPieceCount][2];
#pragma unroll
        for (int p = 0; p < kPieceCount; ++p) {
          const uint4 words = args_.weights[from + p * kWarpThreads + lane()];
          b[0][p][0] = words.x;
          b[0][p][1] = words.y;
          b[1][p][0] = words.z;
          b[1][p][1] = words.w;
        }
        multiply_pieces(a, b[0], gradient[j][0]);
        multiply_pieces(a, b[1], gradient[j][1]);
      }
    }
  }

  /// What a lane reads of one token.
  struct TokenRow {
    BoundaryState<S, kN, kQuadChannels, kWhole> x;
    Packed<S, kQuadChannels> beside[kN], grad_u;  // beside: grad_x', with a write
  };

  __device__ __forceinline__ void load(int64_t t, TokenRow& row) const {
    row.grad_u = load_row(static_cast<const S*>(args_.grad_u.data), args_.grad_u.token_stride, t);
    if (args_.state.y.data) {
      const StreamsView& beside = args_.grad_out;
#pragma unroll
      for (int j = 0; j < kN; ++j) {
        row.beside[j] = load_row(static_cast<const S*>(beside.data) + j * beside.stream_stride,
                                 beside.token_stride, t);
      }
    }
    row.x.load(args_.state, t, c_);
  }

  /// Token t = first + g + 8 kRow: its G, and all that follows from it.
  template <int kRow>
  __device__ __forceinline__ void complete(int64_t t, const TokenRow& row,
                                           const float (&product)[kN][2][4],
                                           uint32_t (&state)[kN][kPieces<S>][4],
                                           float (&sums)[kPadded]) {
    const MixWriteArgs& w = args_.state;
    const bool exists = t < w.tokens && c_ < w.width;
    const BoundaryWeights<kN> weights(w, t);
    float gradient[kN][kQuadChannels], sum[kPadded] = {};
#pragma unroll
    for (int j = 0; j < kN; ++j) {
      const auto stream = state_stream(w, row.x, weights, j);
      const float weight = exists ? read_weight(t, j) : 0;
      const float factor =
          exists && args_.n_logits > 0 ? args_.factor[args_.per_stream ? t * kN + j : t] : 0;
#pragma unroll
      for (int k = 0; k < kQuadChannels; ++k) {
        const float value = stream[k];
        const float grad_u = row.grad_u[k];
        const float of_read = w.y.data ? fmaf(weight, grad_u, row.beside[j][k]) : weight * grad_u;
        gradient[j][k] = fmaf(factor, value, of_read) + product[j][k / 2][2 * kRow + k % 2];
        sum[kN * kN + kN + j] = fmaf(grad_u, value, sum[kN * kN + kN + j]);
      }
      uint32_t pair[kPieces<S>][2];
      split(stream, pair);
#pragma unroll
      for (int p = 0; p < kPieces<S>; ++p) {
        state[j][p][2 * kRow] = pair[p][0];
        state[j][p][2 * kRow + 1] = pair[p][1];
      }
    }
    write_gradients(t, exists, row.x, weights, gradient, sum);
    if (!args_.sums) return;
    float quarter[kPadded / 4];
    quad_sums(sum, quarter);
#pragma unroll
    for (int k = 0; k < kPadded / 4; ++k) sums[q_ * (kPadded / 4) + k] = quarter[k];
  }

  /// mix_write's adjoint at this lane's channels; without a write, G itself.
  __device__ __forceinline__ void write_gradients(
      int64_t t, bool exists, const BoundaryState<S, kN, kQuadChannels, kWhole>& x,
      const BoundaryWeights<kN>& weights, const float (&gradient)[kN][kQuadChannels],
      float (&sum)[kPadded]) {
    const MixWriteArgs& w = args_.state;
    const int64_t left = w.width - c_;
    S* grad_x = static_cast<S*>(args_.grad_x) + t * kN * w.width + c_;
    const bool mixes = w.y.data && w.h_res.data;
#pragma unroll
    for (int i = 0; i < kN; ++i) {
      float mixed[kQuadChannels];
#pragma unroll
      for (int k = 0; k < kQuadChannels; ++k) {
        mixed[k] = gradient[i][k];
        if (!mixes) continue;
        mixed[k] = weights.mix(0, i) * gradient[0][k];
#pragma unroll
        for (int j = 1; j < kN; ++j) {
          mixed[k] = fmaf(weights.mix(j, i), gradient[j][k], mixed[k]);
        }
#pragma unroll
        for (int j = 0; j < kN; ++j) {
          sum[j * kN + i] = fmaf(gradient[j][k], x.source[i][k], sum[j * kN + i]);
        }
      }
      if (exists) store_floats<kWhole>(grad_x + i * w.width, left, mixed);
    }
    if (!w.y.data) return;
    float grad_y[kQuadChannels] = {};
#pragma unroll
    for (int j = 0; j < kN; ++j) {
#pragma unroll
      for (int k = 0; k < kQuadChannels; ++k) {
        grad_y[k] = fmaf(weights.post(j), gradient[j][k], grad_y[k]);
        sum[kN * kN + j] = fmaf(gradient[j][k], x.branch[k], sum[kN * kN + j]);
      }
    }
    if (!exists) return;
    store_branch<kWhole>(w.y_dtype, args_.grad_y, t * w.width + c_, left, grad_y);
#pragma unroll
    for (int k = 0; k < kQuadChannels; ++k) bias_[k] += grad_y[k];
  }

  /// The sums of grad_phi += grad_logits X' of the group's tokens: rows are channels, columns
  /// logits.
  __device__ __forceinline__ void add_phi(int64_t first, uint32_t (&state)[kN][kPieces<S>][4]) {
    if (args_.n_logits == 0) return;
#pragma unroll
    for (int j = 0; j < kN; ++j) {
#pragma unroll
      for (int p = 0; p < kPieces<S>; ++p) {
#pragma unroll
        for (int k = 0; k < 4; ++k) state[j][p][k] = transpose(state[j][p][k]);
      }
    }
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      if (tile * kTileLogits >= args_.n_logits) continue;
      uint32_t b[kPieceCount][2];
#pragma unroll
      for (int j = 0; j < kN; ++j) {
        if (j == 0 || args_.per_stream) {
          const int logit = tile * kTileLogits + g_;
#pragma unroll
          for (int k = 0; k < 2; ++k) {
            const int64_t t = first + 2 * q_ + 8 * k;
            uint32_t pair[kPieceCount];
            split(grad_logit(t, j, logit), grad_logit(t + 1, j, logit), pair);
#pragma unroll
            for (int p = 0; p < kPieceCount; ++p) b[p][k] = pair[p];
          }
        }
        float sum[4], products[4] = {};
        load_phi(j, tile, sum);
        multiply_pieces(state[j], b, products);
#pragma unroll
        for (int k = 0; k < 4; ++k) sum[k] += products[k];
        storage_.phi[j * kTiles + tile][threadIdx.x] = {sum[0], sum[1], sum[2], sum[3]};
      }
    }
  }

  __device__ __forceinline__ void load_phi(int j, int tile, float (&sum)[4]) const {
    const float4 kept = storage_.phi[j * kTiles + tile][threadIdx.x];
    sum[0] = kept.x;
    sum[1] = kept.y;
    sum[2] = kept.z;
    sum[3] = kept.w;
  }

  __device__ __forceinline__ void write_bias() {
#pragma unroll
    for (int k = 0; k < kQuadChannels; ++k) {
      float sum = bias_[k];
      sum += warp_shuffle_xor(sum, 16);
      sum += warp_shuffle_xor(sum, 8);
      sum += warp_shuffle_xor(sum, 4);
      if (g_ == 0 && c_ + k < args_.state.width) {
        args_.bias_partials[blockIdx.y * args_.state.width + c_ + k] = sum;
      }
    }
  }

  /// This lane's channels of row t; zeros where it does not exist.
  __device__ __forceinline__ Packed<S, kQuadChannels> load_row(const S* rows, int64_t stride,
                                                               int64_t t) const {
    const int64_t left = t < args_.state.tokens ? args_.state.width - c_ : 0;
    if (kWhole && left <= 0) return {};
    return packed(load_vector<kWhole, kQuadChannels>(rows + t * stride + c_, left));
  }

  __device__ __forceinline__ float read_weight(int64_t t, int j) const {
    const RowsView& weights = args_.read_weights;
    return static_cast<const float*>(weights.data)[t * weights.token_stride + j];
  }

  const BoundaryGradientsArgs& args_;
  Storage& storage_;
  const int g_, q_;
  int64_t block_, c_;  // the warp's 16 channels, and this lane's first
  float bias_[kQuadChannels] = {};
};

template <class S, int kN, int kTiles, bool kWhole>
__global__ void __launch_bounds__(kSlabThreads, 1)
    boundary_gradients_kernel(const __grid_constant__ BoundaryGradientsArgs args) {
  using Warp = GradientWarp<S, kN, kTiles, kWhole>;
  auto& storage = *dynamic_shared<typename Warp::Storage>();
  Warp work(args, storage);
  const int64_t begin = blockIdx.y * args.tokens_per_part;
  const int64_t end = begin + args.tokens_per_part < args.state.tokens
                          ? begin + args.tokens_per_part
                          : args.state.tokens;
  int buffer = 0;
  for (int64_t first = begin; first < end; first += kGroupTokens) {
    work.group(first, storage.sum[buffer][threadIdx.x / kWarpThreads]);
    if (args.sums) {
      block_barrier();
      for (int k = threadIdx.x; k < kGroupTokens * Warp::kSums; k += kSlabThreads) {
        const int token = k / Warp::kSums, place = k % Warp::kSums;
        if (first + token >= end) continue;
        float sum = storage.sum[buffer][0][token][place];
#pragma unroll
        for (int warp = 1; warp < kSlabWarps; ++warp) {
          sum += storage.sum[buffer][warp][token][place];
        }
        const int64_t row = int64_t{blockIdx.x} * args.state.tokens + first + token;
        args.sums[row * Warp::kSums + place] = sum;
      }
    }
    buffer = 1 - buffer;
  }
  work.finish();
}

template <class S, int kN, int kTiles, bool kWhole>
Status launch_gradients(const BoundaryGradientsArgs& args, const LaunchShape& shape,
                        Stream stream) {
  using Storage = typename GradientWarp<S, kN, kTiles, kWhole>::Storage;
  // As the plan counts it.
  static_assert(sizeof(Storage) ==
                2 * kSlabWarps * kGroupTokens * ((boundary_sums(kN) + 3) / 4 * 16) +
                    kN * kTiles * kSlabThreads * 16);
  return launch(boundary_gradients_kernel<S, kN, kTiles, kWhole>, shape, stream, args);
}

template <class S, int kN>
Status launch_gradients_streams(const BoundaryGradientsArgs& args, const BoundaryPlan& plan,
                                Stream stream) {
  constexpr int kMost = kBoundaryTiles<kN>;
  if (!plan.whole_vectors) {
    return launch_gradients<S, kN, kMost, false>(args, plan.gradients, stream);
  }
  if constexpr (kN == 4) {
    if (plan.tiles <= 3) return launch_gradients<S, kN, 3, true>(args, plan.gradients, stream);
  }
  return launch_gradients<S, kN, kMost, true>(args, plan.gradients, stream);
}

template <class S>
Status boundary_gradients(const BoundaryGradientsArgs& args, const BoundaryPlan& plan,
                          Stream stream) {
  switch (args.state.n_streams) {
    case 1:
      return launch_gradients_streams<S, 1>(args, plan, stream);
    case 2:
      return launch_gradients_streams<S, 2>(args, plan, stream);
    case 3:
      return launch_gradients_streams<S, 3>(args, plan, stream);
    default:
      return launch_gradients_streams<S, 4>(args, plan, stream);
  }
}

}  // namespace hyperstreams::cuda
