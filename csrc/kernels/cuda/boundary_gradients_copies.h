// What a block of boundary_gradients.h brings into shared memory: W and bias once, the rows and
// groups of its tokens tile by tile, zeros where they do not exist.
#pragma once

#include "boundary_gradients_block.h"

namespace hyperstreams::cuda {

template <class S, int kN, int kTiles, bool kWhole>
__device__ __forceinline__ void GradientBlock<S, kN, kTiles, kWhole>::begin() {
  const int streams = args_.per_stream ? 1 : kN;
  const int rows = kSlabMatrices * streams * steps_;
#pragma unroll 1
  for (int k = threadIdx.x; k < rows * kPieceCount * kWarpThreads; k += kThreads) {
    const int piece = k / kWarpThreads % kPieceCount, row = k / kWarpThreads / kPieceCount;
    const int step = row % steps_, stream = row / steps_ % streams;
    const int block = row / steps_ / streams;
    const int64_t from = gradient_fragment(int64_t{blockIdx.x} * kSlabMatrices + block, streams,
                                           stream, steps_, step);
    copy_async(&storage_.weights[block][stream][step][piece][lane()],
               args_.weights + from + piece * kWarpThreads + lane());
  }
  storage_.grad_bias[threadIdx.x] = {};
#pragma unroll 1
  for (int k = threadIdx.x; k < kSlabChannels; k += kThreads) {
    const bool exists = args_.state.bias && first_c_ + k < args_.state.width;
    aligned<float>(storage_.bias)[k] =
        exists ? static_cast<const float*>(args_.state.bias)[first_c_ + k] : 0;
  }
}

template <class S, int kN, int kTiles, bool kWhole>
__device__ __forceinline__ void GradientBlock<S, kN, kTiles, kWhole>::copy_rows(
    const Tile& tile, Stage& stage) const {
  constexpr unsigned kChunks = Storage::kRow - 1, kHalf = kTokens * kChunks;
  const unsigned rank = own_rank(), chunk = rank % kChunks, token = rank / kChunks % kTokens;
  if (kHalf == kThreads || rank < kHalf) {
    copy_streams(args_.state.x, tile, token, chunk, stage.x);
    if (args_.state.y_dtype == DType::kFloat32) {
      copy_branch<float>(tile, token, chunk, stage);
    } else {  // either type of 16 bits
      copy_branch<BFloat16>(tile, token, chunk, stage);
    }
  }
  if (kHalf == kThreads || rank >= kHalf) {
    copy_streams(args_.grad_out, tile, token, chunk, stage.beside);
    copy(&stage.grad_u[token][chunk], row_of<S>(args_.grad_u, tile, token, chunk), tile, token,
         chunk);
  }
}

template <class S, int kN, int kTiles, bool kWhole>
__device__ __forceinline__ void GradientBlock<S, kN, kTiles, kWhole>::copy_groups(
    const Tile& tile, Stage& stage) const {
  const uint4* from = args_.groups + tile.first / kMatrixSize * args_.group_vectors;
  const unsigned count = kGroups * args_.group_vectors;
#pragma unroll 1
  for (unsigned k = own_rank(); k < count; k += kThreads) copy_async(&stage.group[k], from + k);
}

template <class S, int kN, int kTiles, bool kWhole>
template <class T>
__device__ __forceinline__ const T* GradientBlock<S, kN, kTiles, kWhole>::row_of(
    const RowsView& rows, const Tile& tile, unsigned token, unsigned chunk) const {
  const T* first = static_cast<const T*>(rows.data) + tile.first * rows.token_stride + first_c_;
  return first + int64_t{token} * rows.token_stride + chunk * Vector<T>::kSize;
}

template <class S, int kN, int kTiles, bool kWhole>
template <class T>
__device__ __forceinline__ void GradientBlock<S, kN, kTiles, kWhole>::copy(uint4* to, const T* from,
                                                                           const Tile& tile,
                                                                           unsigned token,
                                                                           unsigned chunk) const {
  const int left = channels_ - static_cast<int>(chunk * Vector<T>::kSize);
  const bool exists = static_cast<int>(token) < tile.count && left > 0;
  if constexpr (kWhole) {
    copy_async(to, aligned<const uint4>(from), exists);
  } else {
    const Vector<T> vector = load_vector<false>(from, exists ? left : 0);
    memcpy(to, &vector, sizeof(vector));
  }
}

template <class S, int kN, int kTiles, bool kWhole>
__device__ __forceinline__ void GradientBlock<S, kN, kTiles, kWhole>::copy_streams(
    const StreamsView& streams, const Tile& tile, unsigned token, unsigned chunk,
    uint4 (&to)[kN][kTokens][Storage::kRow]) const {
  if (!streams.data) return;
  const S* from = row_of<S>({streams.data, streams.token_stride}, tile, token, chunk);
#pragma unroll
  for (int j = 0; j < kN; ++j) {
    copy(&to[j][token][chunk], from, tile, token, chunk);
    from += streams.stream_stride;
  }
}

template <class S, int kN, int kTiles, bool kWhole>
template <class Y>
__device__ __forceinline__ void GradientBlock<S, kN, kTiles, kWhole>::copy_branch(
    const Tile& tile, unsigned token, unsigned chunk, Stage& stage) const {
  constexpr unsigned kChunks = kSlabChannels * sizeof(Y) / 16;
  const RowsView& y = args_.state.y;
  if (!y.data) return;
#pragma unroll
  for (unsigned k = 0; k < kChunks; k += Storage::kRow - 1) {
    if (k + chunk >= kChunks) continue;
    copy(&stage.y[token][k + chunk], row_of<Y>(y, tile, token, k + chunk), tile, token, k + chunk);
  }
}

}  // namespace hyperstreams::cuda
