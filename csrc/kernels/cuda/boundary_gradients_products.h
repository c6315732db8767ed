// The products of boundary_gradients.h on tensor cores: grad_logits W of the tokens to come, and
// grad_logits X', whose sums are grad_phi.
#pragma once

#include "boundary_gradients_block.h"

namespace hyperstreams::cuda {

template <class S, int kN, int kTiles, bool kWhole>
__device__ __forceinline__ void GradientBlock<S, kN, kTiles, kWhole>::multiply(const Stage& stage) {
  const int g = lane() / 4, q = lane() % 4;
  for_matrices([&](int, int j, int block) {
    float product[kGroups][2][4] = {};
    // Per stream there is one step.
    const uint4* gradients = stage.group + Storage::kRowVectors + lane() +
                             (args_.per_stream ? j * kPieceCount * kWarpThreads : 0);
    const uint4* weights = &storage_.weights[block][args_.per_stream ? 0 : j][0][0][lane()];
#pragma unroll
    for (int step = 0; step < Storage::kSteps; ++step) {
      if (step >= steps_) continue;
      uint4 a[kGroups][kPieceCount], b[kPieceCount];
#pragma unroll
      for (int p = 0; p < kPieceCount; ++p) {
        const int at = (step * kPieceCount + p) * kWarpThreads;
        b[p] = weights[at];
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
          a[group][p] = gradients[group * args_.group_vectors + at];
        }
      }
      for_pieces<kPieceCount, kPieceCount>([&](int pa, int pb) {
        const uint32_t upper[2][2] = {{b[pb].x, b[pb].y}, {b[pb].z, b[pb].w}};
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
          const uint4& words = a[group][pa];
          const uint32_t rows[4] = {words.x, words.y, words.z, words.w};
          multiply_add(product[group][0], rows, upper[0]);
          multiply_add(product[group][1], rows, upper[1]);
        }
      });
    }
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float4* row = storage_.product[group * kMatrixSize + g + 8 * r];
        row[j * kSlabLanes + block * 4 + q] = {
            product[group][0][2 * r], product[group][0][2 * r + 1], product[group][1][2 * r],
            product[group][1][2 * r + 1]};
      }
    }
  });
}

template <class S, int kN, int kTiles, bool kWhole>
__device__ __forceinline__ void GradientBlock<S, kN, kTiles, kWhole>::add_phi(const Stage& stage) {
  const int begin =
      Storage::kRowVectors + (args_.per_stream ? kN : steps_) * kPieceCount * kWarpThreads;
  for_matrices([&](int i, int j, int block) {
    float product[kTiles][4] = {};
    // Per stream there is one tile.
    const auto* gradients = aligned<const uint2>(stage.group + begin) + lane() +
                            (args_.per_stream ? j * kPieceCount * kWarpThreads : 0);
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      uint32_t a[kPieces<S>][4];
      load_state<S, Storage::kRow>(
          &storage_.state[j][group * kMatrixSize][block * (Storage::kRow - 1) / kSlabMatrices], a);
      uint2 b[kTiles][kPieceCount];
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        if (tile * 8 >= args_.n_logits) continue;
#pragma unroll
        for (int p = 0; p < kPieceCount; ++p) {
          b[tile][p] =
              gradients[2 * group * args_.group_vectors + (tile * kPieceCount + p) * kWarpThreads];
        }
      }
      for_pieces<kPieceCount, kPieces<S>>([&](int pa, int pb) {
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
          if (tile * 8 >= args_.n_logits) continue;
          const uint32_t rows[2] = {b[tile][pb].x, b[tile][pb].y};
          multiply_add(product[tile], a[pa], rows);
        }
      });
    }
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int k = 0; k < 4; ++k) phi_[i][tile][k] += product[tile][k];
    }
  });
}

template <class S, int kN, int kTiles, bool kWhole>
__device__ __forceinline__ void GradientBlock<S, kN, kTiles, kWhole>::finish() {
  if (args_.bias_partials) write_bias();
  if (args_.n_logits == 0) return;
  const int g = lane() / 4, q = lane() % 4;
  const int64_t width = args_.state.width, streams = args_.per_stream ? 1 : kN;
  float* partial = args_.phi_partials + blockIdx.y * args_.n_logits * streams * width;
  float4* kept = &storage_.product[0][0];  // [stream][matrix][lane]: one tile, per stream
  if (args_.per_stream) {
    block_barrier();
    for_matrices([&](int i, int j, int block) {
      const auto& sum = phi_[i][0];
      kept[(j * kSlabMatrices + block) * kWarpThreads + lane()] = {sum[0], sum[1], sum[2], sum[3]};
    });
    block_barrier();
  }
  for_matrices([&](int i, int j, int block) {
    if (args_.per_stream) {
      if (j > 0) return;
      for (int k = 1; k < kN; ++k) {
        const float4& more = kept[(k * kSlabMatrices + block) * kWarpThreads + lane()];
        phi_[i][0][0] += more.x;
        phi_[i][0][1] += more.y;
        phi_[i][0][2] += more.z;
        phi_[i][0][3] += more.w;
      }
    }
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const int64_t c = first_c_ + block * kMatrixSize + g + k / 2 * 8;
        const int logit = tile * 8 + 2 * q + k % 2;
        if (c >= width || logit >= args_.n_logits) continue;
        partial[(logit * streams + j) * width + c] = phi_[i][tile][k];
      }
    }
  });
}

}  // namespace hyperstreams::cuda
