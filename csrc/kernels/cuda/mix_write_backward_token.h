// mix_write's backward for one token: what it reads and writes, its gradients, and its sums over
// channels; which threads own it stands in mix_write_backward.cu.
#pragma once

#include "device/device.h"
#include "hyperstreams/mix_write.h"
#include "mix_write_branch.h"
#include "owner_sums.h"

namespace hyperstreams::cuda {

/// What backward reads and writes for one token and the thread's channels from c on.
template <class S, bool kWhole>
struct MixWriteToken {
  const MixWriteBackwardArgs& args;
  int64_t t;
  const S *x, *grad_out;  // [n, C]
  S* grad_x;              // [n, C]
  const float *h_res, *h_post;

  __device__ __forceinline__ MixWriteToken(const MixWriteBackwardArgs& a, int64_t token)
      : args(a),
        t(token),
        x(static_cast<const S*>(a.x.data) + t * a.x.token_stride),
        grad_out(static_cast<const S*>(a.grad_out.data) + t * a.grad_out.token_stride),
        grad_x(static_cast<S*>(a.grad_x) + t * a.n_streams * a.width),
        h_res(static_cast<const float*>(a.h_res.data) + t * a.h_res.token_stride),
        h_post(static_cast<const float*>(a.h_post.data) + t * a.h_post.token_stride) {}

  __device__ __forceinline__ Vector<S> load_x(int i, int64_t c) const {
    return load_vector<kWhole>(x + i * args.x.stream_stride + c, args.width - c);
  }
  __device__ __forceinline__ Vector<S> load_grad(int j, int64_t c) const {
    return load_vector<kWhole>(grad_out + j * args.grad_out.stream_stride + c, args.width - c);
  }
  __device__ __forceinline__ void store_grad(int i, int64_t c, const Vector<S>& grad) const {
    store_vector<kWhole>(grad_x + i * args.width + c, args.width - c, grad);
  }
  /// y + bias.
  __device__ __forceinline__ void load_y(int64_t c, float (&to)[Vector<S>::kSize]) const {
    const float* bias = args.bias ? static_cast<const float*>(args.bias) + c : nullptr;
    load_branch<kWhole>(args.y_dtype, args.y.data, t * args.y.token_stride + c, bias,
                        args.width - c, to);
  }
  __device__ __forceinline__ void store_grad_y(int64_t c,
                                               const float (&grad)[Vector<S>::kSize]) const {
    store_branch<kWhole>(args.y_dtype, args.grad_y, t * args.width + c, args.width - c, grad);
  }
};

/// Where the sums over channels of one token, or of a block's tokens, go. kRows destinations from
/// `row`; res[r * kStreams + i] and post[r] are this thread's parts.
template <int kRows, int kStreams>
struct MixWriteSums {
  float res[kRows * kStreams], post[kRows];
};

template <int kRows, int kStreams>
struct MixWriteSumsStorage {
  OwnerSumStorage<kRows * kStreams> res;
  OwnerSumStorage<kRows> post;
};

/// Sums over the warp that are not static, after a token.
template <int kRows, int kStreams>
__device__ __forceinline__ void finish_token(const MixWriteBackwardArgs& args, int64_t t, int row,
                                             MixWriteSums<kRows, kStreams>& sums,
                                             MixWriteSumsStorage<kRows, kStreams>& storage) {
  const int n = args.n_streams;
  if (args.h_res.data && args.h_res.token_stride != 0) {
    float* grad = static_cast<float*>(args.grad_h_res) + t * n * n;
    owner_sums<kWarpThreads>(sums.res, storage.res, [&](int k, float sum) {
      const int j = row + k / kStreams, i = k % kStreams;
      if (j < n && i < n) grad[j * n + i] = sum;
    });
  }
  if (args.h_post.token_stride != 0) {
    float* grad = static_cast<float*>(args.grad_h_post) + t * n;
    owner_sums<kWarpThreads>(sums.post, storage.post, [&](int k, float sum) {
      if (row + k < n) grad[row + k] = sum;
    });
  }
}

/// Sums over the block that are static, after its tokens.
template <int kRows, int kStreams>
__device__ __forceinline__ void finish_block(const MixWriteBackwardArgs& args, int row,
                                             MixWriteSums<kRows, kStreams>& sums,
                                             MixWriteSumsStorage<kRows, kStreams>& storage) {
  const int n = args.n_streams;
  double* partial = args.partials + int64_t{blockIdx.x} * (n * n + n);  // [n n + n]
  if (args.h_res.data && args.h_res.token_stride == 0) {
    owner_sums<kOwnerThreads>(sums.res, storage.res, [&](int k, float sum) {
      const int j = row + k / kStreams, i = k % kStreams;
      if (j < n && i < n) partial[j * n + i] = sum;
    });
  }
  if (args.h_post.token_stride == 0) {
    owner_sums<kOwnerThreads>(sums.post, storage.post, [&](int k, float sum) {
      if (row + k < n) partial[n * n + row + k] = sum;
    });
  }
}

/// grad_y and the part of grad_h_post from the vectors g of kRows destinations.
template <int kRows, class S, bool kWhole, class Post>
__device__ __forceinline__ void branch_gradient(const MixWriteToken<S, kWhole>& token, int64_t c,
                                                const Vector<S> (&g)[kRows], int rows,
                                                const Post& h_post) {
  float grad[Vector<S>::kSize] = {};
#pragma unroll
  for (int j = 0; j < kRows; ++j) {
    if (j < rows) {
      const float weight = h_post(j);
#pragma unroll
      for (int k = 0; k < Vector<S>::kSize; ++k) {
        grad[k] = fmaf(weight, to_float(g[j].element[k]), grad[k]);
      }
    }
  }
  token.store_grad_y(c, grad);
}

/// grad_x of source i from the vectors g of kRows destinations.
template <int kRows, class S, bool kWhole, class Res>
__device__ __forceinline__ void source_gradient(const MixWriteToken<S, kWhole>& token, int64_t c,
                                                const Vector<S> (&g)[kRows], int rows, int i,
                                                const Res& h_res) {
  float sum[Vector<S>::kSize] = {};
#pragma unroll
  for (int j = 0; j < kRows; ++j) {
    if (j < rows) {
      const float weight = h_res(j * rows + i);
#pragma unroll
      for (int k = 0; k < Vector<S>::kSize; ++k) {
        sum[k] = fmaf(weight, to_float(g[j].element[k]), sum[k]);
      }
    }
  }
  Vector<S> grad;
#pragma unroll
  for (int k = 0; k < Vector<S>::kSize; ++k) grad.element[k] = from_float<S>(sum[k]);
  token.store_grad(i, c, grad);
}

/// sum += a . b over the vector.
template <class S, class B>
__device__ __forceinline__ void add_dot(const Vector<S>& a, const B& b, float& sum) {
#pragma unroll
  for (int k = 0; k < Vector<S>::kSize; ++k) sum = fmaf(to_float(a.element[k]), b(k), sum);
}

}  // namespace hyperstreams::cuda
