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
//   tokens    a lane has 4 channels of one token, 16 lanes all of the slab: X', G and what follows
//             from them but grad_phi; X' into shared memory
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
  static constexpr DType kDType = sizeof(S) == 4                ? DType::kFloat32
                                  : std::is_same_v<S, BFloat16> ? DType::kBFloat16
                                                                : DType::kFloat16;
  static constexpr int kPieceCount = Storage::kPieceCount;
  static constexpr int kTokens = Storage::kTokens;
  static constexpr int kGroups = Storage::kGroups;
  static constexpr int kThreads = Storage::kThreads;
  static constexpr int kWarps = Storage::kWarps;
  static constexpr int kSums = boundary_sums(kN);

  /// Tokens [first, first + kTokens), of which the first `count` exist.
  struct Tile {
    int64_t first;
    int count;
  };

  __device__ __forceinline__ GradientBlock(const BoundaryGradientsArgs& args, Storage& storage)
      : args_(args),
        storage_(storage),
        first_c_(int64_t{blockIdx.x} * kSlabChannels),
        channels_(static_cast<int>(args.state.width - first_c_ < kSlabChannels
                                       ? args.state.width - first_c_
                                       : kSlabChannels)),
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

  /// The rows of `tile`, zeros where they do not exist.
  __device__ __forceinline__ void copy_rows(const Tile& tile, Stage& stage) const {
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

  /// What the groups of `tile` need beside.
  __device__ __forceinline__ void copy_groups(const Tile& tile, Stage& stage) const {
    const uint4* from = args_.groups + tile.first / kMatrixSize * args_.group_vectors;
    const unsigned count = kGroups * args_.group_vectors;
#pragma unroll 1
    for (unsigned k = own_rank(); k < count; k += kThreads) copy_async(&stage.group[k], from + k);
  }

  /// grad_logits W of the tokens in `stage`.
  __device__ __forceinline__ void multiply(const Stage& stage) {
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

  /// Everything of `tile`, in `stage`, but grad_phi.
  __device__ __forceinline__ void tokens(const Tile& tile, const Stage& stage) {
    if (!args_.state.y.data) {
      complete<false, false>(tile, stage);
    } else if (!args_.state.h_res.data) {
      complete<true, false>(tile, stage);
    } else {
      complete<true, true>(tile, stage);
    }
  }

  /// The sums of grad_phi += grad_logits X' of the tokens in `stage`: rows are channels, columns
  /// logits.
  __device__ __forceinline__ void add_phi(const Stage& stage) {
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
            &storage_.state[j][group * kMatrixSize][block * (Storage::kRow - 1) / kSlabMatrices],
            a);
        uint2 b[kTiles][kPieceCount];
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
          if (tile * 8 >= args_.n_logits) continue;
#pragma unroll
          for (int p = 0; p < kPieceCount; ++p) {
            b[tile][p] = gradients[2 * group * args_.group_vectors +
                                   (tile * kPieceCount + p) * kWarpThreads];
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
      const int matrix = static_cast<int>(i * kWarps + own_rank() / kWarpThreads);
      if (kWarps * (i + 1) <= kN * kSlabMatrices || matrix < kN * kSlabMatrices)
        f(i, matrix / kSlabMatrices, matrix % kSlabMatrices);
    }
  }

  /// threadIdx.x, of which nothing is computed ahead and kept in registers.
  __device__ __forceinline__ static unsigned own_rank() {
    return static_cast<unsigned>(opaque(int64_t{threadIdx.x}));
  }

  /// Vector `chunk` of the slab in a token's row.
  template <class T>
  __device__ __forceinline__ const T* row_of(const RowsView& rows, const Tile& tile, unsigned token,
                                             unsigned chunk) const {
    const T* first = static_cast<const T*>(rows.data) + tile.first * rows.token_stride + first_c_;
    return first + int64_t{token} * rows.token_stride + chunk * Vector<T>::kSize;
  }

  template <class T>
  __device__ __forceinline__ void copy(uint4* to, const T* from, const Tile& tile, unsigned token,
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

  __device__ __forceinline__ void copy_streams(const StreamsView& streams, const Tile& tile,
                                               unsigned token, unsigned chunk,
                                               uint4 (&to)[kN][kTokens][Storage::kRow]) const {
    if (!streams.data) return;
    const S* from = row_of<S>({streams.data, streams.token_stride}, tile, token, chunk);
#pragma unroll
    for (int j = 0; j < kN; ++j) {
      copy(&to[j][token][chunk], from, tile, token, chunk);
      from += streams.stream_stride;
    }
  }

  template <class Y>
  __device__ __forceinline__ void copy_branch(const Tile& tile, unsigned token, unsigned chunk,
                                              Stage& stage) const {
    constexpr unsigned kChunks = kSlabChannels * sizeof(Y) / 16;
    const RowsView& y = args_.state.y;
    if (!y.data) return;
#pragma unroll
    for (unsigned k = 0; k < kChunks; k += Storage::kRow - 1) {
      if (k + chunk >= kChunks) continue;
      copy(&stage.y[token][k + chunk], row_of<Y>(y, tile, token, k + chunk), tile, token,
           k + chunk);
    }
  }

  /// This lane's channels of a row in shared memory.
  template <class T>
  __device__ __forceinline__ static Packed<T, kQuadChannels> quad_of(const uint4* row,
                                                                     unsigned quad) {
    using Word = typename VectorWords<T, kQuadChannels>::Word;
    const Word word = aligned<const Word>(row)[quad];
    Packed<T, kQuadChannels> words;
    memcpy(words.word, &word, sizeof(word));
    return words;
  }

  /// y + bias.
  __device__ __forceinline__ void load_branch(const uint4* row, unsigned quad, bool exists,
                                              float (&to)[kQuadChannels]) const {
    const auto unpack = [&](const auto& words) {
#pragma unroll
      for (int k = 0; k < kQuadChannels; ++k) to[k] = words[k];
    };
    if (args_.state.y_dtype == kDType) {
      unpack(quad_of<S>(row, quad));
    } else if (args_.state.y_dtype == DType::kFloat32) {
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
  __device__ __forceinline__ void complete(const Tile& tile, const Stage& stage) {
    const MixWriteArgs& w = args_.state;
    const unsigned rank = own_rank(), token = rank / kSlabLanes, quad = rank % kSlabLanes;
    const int left = channels_ - static_cast<int>(quad * kQuadChannels);
    const bool is_token = static_cast<int>(token) < tile.count, exists = is_token && left > 0;
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
    const uint4* row = stage.group + token / kMatrixSize * args_.group_vectors +
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
        const float of_read =
            kWrites ? fmaf(weights.read(), grad_u[k], beside[k]) : weights.read() * grad_u[k];
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
    const int64_t c = first_c_ + quad * kQuadChannels;
    if (exists) {
      const int64_t row_c = tile.first * w.width + token * w.width;
      S* to = static_cast<S*>(args_.grad_x) + kN * row_c + c;
#pragma unroll
      for (int i = 0; i < kN; ++i) {
        store_floats<kWhole>(to, left, grad_x[i]);
        to += w.width;
      }
      if (kWrites) {
        store_branch<kWhole>(w.y_dtype, args_.grad_y, row_c + c, left, grad_y);
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
    float* to = args_.sums + (blockIdx.x * w.tokens + tile.first) * kSums;
    sums.finish([&](int k, float value) {
      if (is_token && k < kSums) to[token * kSums + k] = value;
    });
  }

  /// Writes this lane's channels of a row in shared memory.
  __device__ __forceinline__ static void keep(const Packed<S, kQuadChannels>& words, uint4* row,
                                              unsigned quad) {
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
  const int channels_, steps_;  // of the slab that exist; of 16 logits
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
  const int64_t left = args.state.tokens - begin;
  const int count = static_cast<int>(left < args.tokens_per_part ? left : args.tokens_per_part);
  const auto tile_at = [&](int token) -> typename Block::Tile {
    return {begin + token, count - token < kTokens ? count - token : kTokens};
  };
  block.begin();
  block.copy_rows(tile_at(0), storage.stage[0]);
  block.copy_groups(tile_at(0), storage.stage[0]);
  end_copy_group();
  finish_copies<0>();
  block_barrier();
  if (kTokens < count) {
    block.copy_rows(tile_at(kTokens), storage.stage[1]);
    block.copy_groups(tile_at(kTokens), storage.stage[1]);
  }
  end_copy_group();
  block.multiply(storage.stage[0]);
  block_barrier();
  int now = 0;
  for (int token = 0; token < count; token += kTokens) {
    auto &stage = storage.stage[now], &next = storage.stage[1 - now];
    const bool copies = token + 2 * kTokens < count;
    block.tokens(tile_at(token), stage);
    finish_copies<0>();
    block_barrier();
    if (copies) block.copy_rows(tile_at(token + 2 * kTokens), stage);
    block.add_phi(stage);
    if (token + kTokens < count) block.multiply(next);
    block_barrier();
    if (copies) block.copy_groups(tile_at(token + 2 * kTokens), stage);
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
