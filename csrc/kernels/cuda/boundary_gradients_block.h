// A block of boundary's second backward kernel (boundary_gradients.h): what it holds, and what it
// does, in the files beside.
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
  __device__ __forceinline__ void begin();

  /// The rows of `tile`, zeros where they do not exist.
  __device__ __forceinline__ void copy_rows(const Tile& tile, Stage& stage) const;

  /// What the groups of `tile` need beside.
  __device__ __forceinline__ void copy_groups(const Tile& tile, Stage& stage) const;

  /// grad_logits W of the tokens in `stage`.
  __device__ __forceinline__ void multiply(const Stage& stage);

  /// Everything of `tile`, in `stage`, but grad_phi.
  __device__ __forceinline__ void tokens(const Tile& tile, const Stage& stage);

  /// The sums of grad_phi += grad_logits X' of the tokens in `stage`: rows are channels, columns
  /// logits.
  __device__ __forceinline__ void add_phi(const Stage& stage);

  /// The sums over tokens, after the last barrier.
  __device__ __forceinline__ void finish();

 private:
  static constexpr int kMatrices = (kN * kSlabMatrices + kWarps - 1) / kWarps;

  /// Calls f(i, stream, block) for this warp's matrices of 16 channels.
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
                                             unsigned chunk) const;

  template <class T>
  __device__ __forceinline__ void copy(uint4* to, const T* from, const Tile& tile, unsigned token,
                                       unsigned chunk) const;

  __device__ __forceinline__ void copy_streams(const StreamsView& streams, const Tile& tile,
                                               unsigned token, unsigned chunk,
                                               uint4 (&to)[kN][kTokens][Storage::kRow]) const;

  template <class Y>
  __device__ __forceinline__ void copy_branch(const Tile& tile, unsigned token, unsigned chunk,
                                              Stage& stage) const;

  /// This lane's channels of a row in shared memory.
  template <class T>
  __device__ __forceinline__ static Packed<T, kQuadChannels> quad_of(const uint4* row,
                                                                     unsigned quad);

  /// y + bias.
  __device__ __forceinline__ void load_branch(const uint4* row, unsigned quad, bool exists,
                                              float (&to)[kQuadChannels]) const;

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
  __device__ __forceinline__ void complete(const Tile& tile, const Stage& stage);

  /// Writes this lane's channels of a row in shared memory.
  __device__ __forceinline__ static void keep(const Packed<S, kQuadChannels>& words, uint4* row,
                                              unsigned quad);

  /// grad_y over the block's tokens: the two of a warp, then the warps.
  __device__ __forceinline__ void write_bias();

  const BoundaryGradientsArgs& args_;
  Storage& storage_;
  const int64_t first_c_;
  const int channels_, steps_;  // of the slab that exist; of 16 logits
  float phi_[kMatrices][kTiles][4] = {};
};

}  // namespace hyperstreams::cuda
