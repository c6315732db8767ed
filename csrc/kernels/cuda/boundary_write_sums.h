// What the two kernels of boundary_write.h share: their sums, and where those go.
#pragma once

#include "boundary_kernels.h"
#include "skinny_product.h"

namespace hyperstreams::cuda {

/// Compile-time numbers. Per stream, every stream has sums of its own and its logits are one tile.
template <int kN, int kTiles, bool kPerStream>
struct WriteSizes {
  static constexpr int kSums = kPerStream ? kN : 1;
  static constexpr int kSumTiles = kPerStream ? 1 : kTiles;
  static constexpr int kSumLogits = kSumTiles * kTileLogits;
  static constexpr int kRow = kSums * (kSumLogits + 1);  // logits, then squares
};

/// One sum of one row of project to scratch.
template <bool kPerStream>
__device__ __forceinline__ void write_part(const BoundaryWriteArgs& args, int64_t part, int64_t t,
                                           int n, int sum, int logit, float value) {
  if (t >= args.write.tokens || logit >= args.n_logits) return;
  const int64_t rows = args.write.tokens * (kPerStream ? n : 1);
  const int64_t row = kPerStream ? t * n + sum : t;
  const int place = logit < 0 ? args.n_logits : logit;
  args.sums[(part * rows + row) * (args.n_logits + 1) + place] = value;
}

}  // namespace hyperstreams::cuda
