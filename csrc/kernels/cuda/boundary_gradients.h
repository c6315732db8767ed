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
// Block (slab, part): 64 channels of all n <= 4 streams, a range of tokens, 32 at a time (16 of
// float). Everything of the next tokens is on its way to shared memory meanwhile; W stays there.
//   tokens    a lane has 4 channels of one token, 16 lanes all of the slab: X', G, what follows from
//             them but grad_phi; X' into shared memory
//   add_phi   a warp has 16 channels of a stream, whose sums of grad_phi stay in registers
//   multiply  grad_logits W of the next tokens, likewise, into shared memory
// with a barrier before the first and after it.
//   (3n + 3) C elements; n n + 2n floats and what a group needs (plan/gradients.h) per token and
//   slab; K D floats per part; W once per block from the nearest cache.
//
// Products are of bfloat16 pieces: two of grad_logits and W (relative error 2^-16) for 16-bit
// streams, whose gradients are rounded to 2^-9 or 2^-12, three for float. The tensor core adds
// those of one batch of tokens alone, since it cuts every sum towards zero.
//
// Deterministic: every sum has one order, which tokens, n, width and dtype fix.
#pragma once

#include "boundary_fragments.h"
#include "boundary_kernels.h"
#include "boundary_matrix.h"
#include "mix_write_branch.h"

namespace hyperstreams::cuda {

/// Numbers and shared memory of a block.
template <class S, int kN, int kTiles>
struct GradientStorage {
  static constexpr int kPieceCount = gradient_pieces(sizeof(S));
  static constexpr int kTokens = gradient_tokens(sizeof(S));
  static constexpr int kGroups = kTokens / kMatrixSize;
  static constexpr int kThreads = kTokens * kSlabLanes;
  static constexpr int kWarps = kThreads / kWarpThreads;
  static constexpr int kSteps = (kTiles + 1) / 2;
  static constexpr int kRow = slab_row_vectors(sizeof(S));
  static constexpr int kBranchRow = slab_row_vectors(4);
  static constexpr int kRowFloats = group_row_floats(kN);  // of a group, per token and stream
  static constexpr int kRowVectors = group_row_vectors(kN);

  struct Stage {
    uint4 x[kN][kTokens][kRow], beside[kN][kTokens][kRow], grad_u[kTokens][kRow];
    uint4 y[kTokens][kBranchRow];
    uint4 group[kGroups * most_group_vectors(kN, kPieceCount, kTiles)];  // one after the other
  };
  Stage stage[2];
  uint4 state[kN][kTokens][kRow];
  float4 product[kTokens][kN * kSlabLanes + 4];  // 4: the next row in other banks
  uint4 weights[kSlabMatrices][kN][kSteps][kPieceCount][kWarpThreads];
  float4 bias[kSlabLanes];
  float4 grad_bias[kThreads];  // every thread's own sums
};

template <class S, int kN, int kTiles, bool kWhole>
class GradientBlock {
 public:
  using Storage = GradientStorage<S, kN, kTiles>;
  using Stage = typename Storage::Stage;
  static constexpr int kPieceCount = Storage::kPieceCount;
  static constexpr int kTokens = Storage::kTokens;
  static constexpr int kGroups = Storage::kGroups;
  static constexpr int kThreads = Storage::kThreads;
  static constexpr int kWarps = Storage::kWarps;
  static constexpr int kSums = boundary_sums(kN);

  __device__ __forceinline__ GradientBlock(const BoundaryGradientsArgs& args, Storage& storage)
      : args_(args),
        storage_(storage),
        first_c_(int64_t{blockIdx.x} * kSlabChannels),
        steps_((args.n_logits + kInnerLogits - 1) / kInnerLogits) {}

  /// What stays for the life of the block.
  __device__ __forceinline__ void begin() {
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

  /// The rows of tokens [first, first + kTokens), zeros where they do not exist.
  __device__ __forceinline__ void copy_rows(int64_t first, Stage& stage) const {
    constexpr int kChunks = Storage::kRow - 1, kHalf = kTokens * kChunks;
    const int rank = own_rank();
    const int chunk = rank % kChunks, token = rank / kChunks % kTokens;
    if (kHalf == kThreads || rank < kHalf) {
      copy_streams(args_.state.x, first + token, token, chunk, stage.x);
      if (args_.state.y_dtype == DType::kFloat32) {
        copy_branch<float>(first + token, token, chunk, stage);
      } else {  // either type of 16 bits
        copy_branch<BFloat16>(first + token, token, chunk, stage);
      }
    }
    if (kHalf == kThreads || rank >= kHalf) {
      copy_streams(args_.grad_out, first + token, token, chunk, stage.beside);
      copy(&stage.grad_u[token][chunk], args_.grad_u, first + token, chunk, S{});
    }
  }

  /// What the groups of tokens [first, first + kTokens) need beside.
  __device__ __forceinline__ void copy_groups(int64_t first, Stage& stage) const {
    const uint4* from = args_.groups + first / kMatrixSize * args_.group_vectors;
#pragma unroll 1
    for (int k = own_rank(); k < kGroups * args_.group_vectors; k += kThreads) {
      copy_async(&stage.group[k], from + k);
    }
  }

  /// grad_logits W of the tokens in `stage`.
  __device__ __forceinline__ void multiply(const Stage& stage) {
    const int g = lane() / 4, q = lane() % 4;
    for_matrices([&](int, int j, int block) {
      float product[kGroups][2][4] = {};
#pragma unroll
      for (int step = 0; step < Storage::kSteps; ++step) {
        if (step >= steps_) continue;
        const int set = args_.per_stream ? j : step, stream = args_.per_stream ? 0 : j;
        uint4 a[kGroups][kPieceCount], b[kPieceCount];
#pragma unroll
        for (int p = 0; p < kPieceCount; ++p) {
          b[p] = storage_.weights[block][stream][step][p][lane()];
#pragma unroll
          for (int group = 0; group < kGroups; ++group) {
            a[group][p] = group_of(stage, group)[Storage::kRowVectors +
                                                 (set * kPieceCount + p) * kWarpThreads + lane()];
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

  /// Everything of the tokens in `stage`, the first of which is `first`, but grad_phi.
  __device__ __forceinline__ void tokens(int64_t first, const Stage& stage) {
    if (!args_.state.y.data) {
      complete<false, false>(first, stage);
    } else if (!args_.state.h_res.data) {
      complete<true, false>(first, stage);
    } else {
      complete<true, true>(first, stage);
    }
  }

  /// The sums of grad_phi += grad_logits X' of the tokens in `stage`: rows are channels, columns
  /// logits.
  __device__ __forceinline__ void add_phi(const Stage& stage) {
    const int begin = Storage::kRowVectors +
                      (args_.per_stream ? kN : steps_) * kPieceCount * kWarpThreads;
    for_matrices([&](int i, int j, int block) {
      float product[kTiles][4] = {};
#pragma unroll
      for (int group = 0; group < kGroups; ++group) {
        uint32_t a[kPieces<S>][4];
        load_state<S, Storage::kRow>(
            &storage_.state[j][group * kMatrixSize][block * (Storage::kRow - 1) / kSlabMatrices], a);
        const auto* fragments = aligned<const uint2>(group_of(stage, group) + begin) + lane();
        uint2 b[kTiles][kPieceCount];
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
          if (tile * 8 >= args_.n_logits) continue;
#pragma unroll
          for (int p = 0; p < kPieceCount; ++p) {
            const int set = args_.per_stream ? j : tile;
            b[tile][p] = fragments[(set * kPieceCount + p) * kWarpThreads];
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

  /// The sums over tokens, after the last barrier.
  __device__ __forceinline__ void finish() {
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
        kept[(j * kSlabMatrices + block) * kWarpThreads + lane()] = {sum[0], sum[1], sum[2],
                                                                     sum[3]};
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

 private:
  /// Calls f(i, stream, block) for this warp's matrices of 16 channels.
  static constexpr int kMatrices = (kN * kSlabMatrices + kWarps - 1) / kWarps;
  template <class F>
  __device__ __forceinline__ void for_matrices(const F& f) const {
    if (args_.n_logits == 0) return;
#pragma unroll
    for (int i = 0; i < kMatrices; ++i) {
      const int matrix = i * kWarps + own_rank() / kWarpThreads;
      if (matrix < kN * kSlabMatrices) f(i, matrix / kSlabMatrices, matrix % kSlabMatrices);
    }
  }

  /// threadIdx.x, of which nothing is computed ahead and kept in registers.
  __device__ __forceinline__ static int own_rank() {
    return static_cast<int>(opaque(int64_t{threadIdx.x}));
  }

  __device__ __forceinline__ const uint4* group_of(const Stage& stage, int group) const {
    return stage.group + group * args_.group_vectors;
  }

  /// Vector `chunk` of the slab of row t.
  template <class T>
  __device__ __forceinline__ void copy(uint4* to, const RowsView& rows, int64_t t, int chunk,
                                       T) const {
    const int64_t c = first_c_ + chunk * Vector<T>::kSize;
    const int64_t left = t < args_.state.tokens ? args_.state.width - c : 0;
    const T* from = static_cast<const T*>(rows.data) + t * rows.token_stride + c;
    if constexpr (kWhole) {
      copy_async(to, aligned<const uint4>(from), left > 0);
    } else {
      const Vector<T> vector = load_vector<false>(from, left);
      memcpy(to, &vector, sizeof(vector));
    }
  }

  __device__ __forceinline__ void copy_streams(const StreamsView& streams, int64_t t, int token,
                                               int chunk,
                                               uint4 (&to)[kN][kTokens][Storage::kRow]) const {
    if (!streams.data) return;
#pragma unroll
    for (int j = 0; j < kN; ++j) {
      const S* stream = static_cast<const S*>(streams.data) + j * streams.stream_stride;
      copy(&to[j][token][chunk], {stream, streams.token_stride}, t, chunk, S{});
    }
  }

  template <class Y>
  __device__ __forceinline__ void copy_branch(int64_t t, int token, int chunk, Stage& stage) const {
    constexpr int kChunks = kSlabChannels * sizeof(Y) / 16;
    if (!args_.state.y.data) return;
#pragma unroll
    for (int k = 0; k < kChunks; k += Storage::kRow - 1) {
      if (k + chunk < kChunks) {
        copy(&stage.y[token][k + chunk], args_.state.y, t, k + chunk, Y{});
      }
    }
  }

  /// This lane's channels of a row in shared memory.
  template <class T>
  __device__ __forceinline__ static Packed<T, kQuadChannels> quad_of(const uint4* row, int quad) {
    using Word = typename VectorWords<T, kQuadChannels>::Word;
    const Word word = aligned<const Word>(row)[quad];
    Packed<T, kQuadChannels> words;
    memcpy(words.word, &word, sizeof(word));
    return words;
  }

  /// y + bias.
  __device__ __forceinline__ void load_branch(const uint4* row, int quad, bool exists,
                                              float (&to)[kQuadChannels]) const {
    const auto unpack = [&](const auto& words) {
#pragma unroll
      for (int k = 0; k < kQuadChannels; ++k) to[k] = words[k];
    };
    if (args_.state.y_dtype == DType::kFloat32) {
      unpack(quad_of<float>(row, quad));
    } else if (args_.state.y_dtype == DType::kBFloat16) {
      unpack(quad_of<BFloat16>(row, quad));
    } else {
      unpack(quad_of<Float16>(row, quad));
    }
    const float4 bias = storage_.bias[quad];
    const float add[] = {bias.x, bias.y, bias.z, bias.w};
#pragma unroll
    for (int k = 0; k < kQuadChannels; ++k) to[k] = exists ? to[k] + add[k] : 0;
  }

  /// h_res[j, :], h_post[j], weight[j] and factor[j] of a token.
  struct StreamWeights {
    float value[Storage::kRowFloats];
    __device__ __forceinline__ StreamWeights(const uint4* row, int j) {
      constexpr int kVectors = Storage::kRowFloats / 4;
#pragma unroll
      for (int v = 0; v < kVectors; ++v) {
        const uint4 words = row[j * kVectors + v];
        value[4 * v] = float_from_bits(words.x);
        value[4 * v + 1] = float_from_bits(words.y);
        value[4 * v + 2] = float_from_bits(words.z);
        value[4 * v + 3] = float_from_bits(words.w);
      }
    }
    __device__ __forceinline__ float mix(int i) const { return value[i]; }
    __device__ __forceinline__ float post() const { return value[kN]; }
    __device__ __forceinline__ float read() const { return value[kN + 1]; }
    __device__ __forceinline__ float factor() const { return value[kN + 2]; }
  };

  /// This lane's token. Without a write X' is X, grad_x is G; without a mix h_res is the identity.
  template <bool kWrites, bool kMixes>
  __device__ __forceinline__ void complete(int64_t first, const Stage& stage) {
    const MixWriteArgs& w = args_.state;
    const int rank = own_rank(), token = rank / kSlabLanes, quad = rank % kSlabLanes;
    const int64_t t = first + token, c = first_c_ + quad * kQuadChannels, left = w.width - c;
    const bool exists = t < w.tokens && left > 0;
    float x[kN][kQuadChannels], branch[kQuadChannels] = {}, grad_u[kQuadChannels];
#pragma unroll
    for (int i = 0; i < kN; ++i) {
      const auto words = quad_of<S>(stage.x[i][token], quad);
#pragma unroll
      for (int k = 0; k < kQuadChannels; ++k) x[i][k] = words[k];
    }
    if (kWrites) load_branch(stage.y[token], quad, exists, branch);
    const auto packed_grad_u = quad_of<S>(stage.grad_u[token], quad);
#pragma unroll
    for (int k = 0; k < kQuadChannels; ++k) grad_u[k] = packed_grad_u[k];
    float grad_x[kN][kQuadChannels], grad_y[kQuadChannels] = {};
    TokenSums<kN> sums;
    const uint4* row = group_of(stage, token / kMatrixSize) +
                       token % kMatrixSize * (Storage::kRowVectors / kMatrixSize);
#pragma unroll
    for (int j = 0; j < kN; ++j) {
      const StreamWeights weights(row, j);
      float gradient[kQuadChannels], sum[kN + 2] = {};
#pragma unroll
      for (int k = 0; k < kQuadChannels; ++k) {  // X', as mix_write rounds it
        float value = kMixes ? weights.mix(0) * x[0][k] : x[j][k];
#pragma unroll
        for (int i = 1; kMixes && i < kN; ++i) value = fmaf(weights.mix(i), x[i][k], value);
        gradient[k] = kWrites ? fmaf(weights.post(), branch[k], value) : value;
      }
      const auto state = packed<S>(gradient);
      keep(state, storage_.state[j][token], quad);
      Packed<S, kQuadChannels> beside{};
      if (kWrites) beside = quad_of<S>(stage.beside[j][token], quad);
      float product[kQuadChannels] = {};
      if (args_.n_logits > 0) {
        const float4 words = storage_.product[token][j * kSlabLanes + quad];
        product[0] = words.x;
        product[1] = words.y;
        product[2] = words.z;
        product[3] = words.w;
      }
#pragma unroll
      for (int k = 0; k < kQuadChannels; ++k) {
        const float of_read = kWrites ? fmaf(weights.read(), grad_u[k], beside[k])
                                      : weights.read() * grad_u[k];
        gradient[k] = fmaf(weights.factor(), state[k], of_read) + product[k];
        sum[kN + 1] = fmaf(grad_u[k], state[k], sum[kN + 1]);
        if (kWrites) {
          grad_y[k] = fmaf(weights.post(), gradient[k], grad_y[k]);
          sum[kN] = fmaf(gradient[k], branch[k], sum[kN]);
        }
        if (!kMixes) grad_x[j][k] = gradient[k];
#pragma unroll
        for (int i = 0; kMixes && i < kN; ++i) {
          grad_x[i][k] = j == 0 ? weights.mix(i) * gradient[k]
                                : fmaf(weights.mix(i), gradient[k], grad_x[i][k]);
          sum[i] = fmaf(gradient[k], x[i][k], sum[i]);
        }
      }
      sums.add(j, sum);
    }
    if (exists) {
      S* to = static_cast<S*>(args_.grad_x) + t * kN * w.width + c;
#pragma unroll
      for (int i = 0; i < kN; ++i) store_floats<kWhole>(to + i * w.width, left, grad_x[i]);
      if (kWrites) {
        store_branch<kWhole>(w.y_dtype, args_.grad_y, t * w.width + c, left, grad_y);
        if (args_.bias_partials) {
          float4& bias = storage_.grad_bias[threadIdx.x];
          bias.x += grad_y[0];
          bias.y += grad_y[1];
          bias.z += grad_y[2];
          bias.w += grad_y[3];
        }
      }
    }
    if (!args_.sums) return;
    float* to = args_.sums + (int64_t{blockIdx.x} * w.tokens + t) * kSums;
    sums.finish([&](int k, float value) {
      if (t < w.tokens && k < kSums) to[k] = value;
    });
  }

  /// Writes this lane's channels of a row in shared memory.
  __device__ __forceinline__ static void keep(const Packed<S, kQuadChannels>& words, uint4* row,
                                              int quad) {
    using Word = typename VectorWords<S, kQuadChannels>::Word;
    Word word;
    memcpy(&word, words.word, sizeof(word));
    aligned<Word>(row)[quad] = word;
  }

  /// grad_y over the block's tokens: the two of a warp, then the warps.
  __device__ __forceinline__ void write_bias() {
    float* kept = aligned<float>(&storage_.product[0][0]);  // [warp][channel]
    const int of_warp = static_cast<int>(threadIdx.x) / kWarpThreads * kSlabChannels;
    const int quad = static_cast<int>(threadIdx.x) % kSlabLanes;
    const float4& own = storage_.grad_bias[threadIdx.x];
    const float bias[kQuadChannels] = {own.x, own.y, own.z, own.w};
#pragma unroll
    for (int k = 0; k < kQuadChannels; ++k) {
      const float sum = bias[k] + warp_shuffle_xor(bias[k], kSlabLanes);
      if (lane() < kSlabLanes) kept[of_warp + quad * kQuadChannels + k] = sum;
    }
    block_barrier();
    const int c = static_cast<int>(threadIdx.x);
    if (c >= kSlabChannels || first_c_ + c >= args_.state.width) return;
    float sum = kept[c];
    for (int warp = 1; warp < kWarps; ++warp) sum += kept[warp * kSlabChannels + c];
    args_.bias_partials[blockIdx.y * args_.state.width + first_c_ + c] = sum;
  }

  const BoundaryGradientsArgs& args_;
  Storage& storage_;
  const int64_t first_c_;
  const int steps_;
  float phi_[kMatrices][kTiles][4] = {};
};

template <class S, int kN, int kTiles, bool kWhole>
__global__ void __launch_bounds__((GradientStorage<S, kN, kTiles>::kThreads), 1)
    boundary_gradients_kernel(const __grid_constant__ BoundaryGradientsArgs args) {
  using Block = GradientBlock<S, kN, kTiles, kWhole>;
  constexpr int kTokens = Block::kTokens;
  auto& storage = *dynamic_shared<typename Block::Storage>();
  Block block(args, storage);
  const int64_t begin = blockIdx.y * args.tokens_per_part;
  const int64_t end = begin + args.tokens_per_part < args.state.tokens
                          ? begin + args.tokens_per_part
                          : args.state.tokens;
  block.begin();
  block.copy_rows(begin, storage.stage[0]);
  block.copy_groups(begin, storage.stage[0]);
  end_copy_group();
  finish_copies<0>();
  block_barrier();
  if (begin + kTokens < end) {
    block.copy_rows(begin + kTokens, storage.stage[1]);
    block.copy_groups(begin + kTokens, storage.stage[1]);
  }
  end_copy_group();
  block.multiply(storage.stage[0]);
  block_barrier();
  int now = 0;
  for (int64_t first = begin; first < end; first += kTokens) {
    auto &stage = storage.stage[now], &next = storage.stage[1 - now];
    const bool copies = first + 2 * kTokens < end;
    block.tokens(first, stage);
    finish_copies<0>();
    block_barrier();
    if (copies) block.copy_rows(first + 2 * kTokens, stage);
    block.add_phi(stage);
    if (first + kTokens < end) block.multiply(next);
    block_barrier();
    if (copies) block.copy_groups(first + 2 * kTokens, stage);
    end_copy_group();
    now = 1 - now;
  }
  block.finish();
}

template <class S, int kN, int kTiles, bool kWhole>
Status launch_gradients(const BoundaryGradientsArgs& args, const LaunchShape& shape,
                        Stream stream) {
  static_assert(sizeof(GradientStorage<S, kN, kTiles>) ==
                gradient_shared_bytes(kN, kTiles, sizeof(S)));
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
