// The first kernel of boundary's forward, as templates; compiled by boundary_write_<dtype>.cu.
//
//   X'[t, j, c]  = sum_i h_res[t, j, i] X[t, i, c] + h_post[t, j] (y[t, c] + bias[c]), rounded
//   sums of X':    X'[t] . W[k] for every logit k, and X'[t] . X'[t]           (where there is W)
//   u[t, c]      = sum_i weights[t, i] X'[t, i, c]                              (weights given)
//
// A warp takes 16 tokens and walks along the channels in chunks of 32, all n <= 4 streams of a
// chunk at once: lane 4g + q holds channels 8q to 8q + 7 of tokens g and g + 8, which is what the
// matrix instructions want (skinny_product.h), so X' never leaves registers between its store and
// the product. Blocks: x along the tokens, y along parts of the channels. boundary_write_staged.h
// for many tokens in whole vectors, boundary_write_direct.h for the rest.
//   (2n + 1) C elements (C more for u), n n + n floats, and K + 1 floats per part and token; W is
//   read once per block, from L2.
//
// Deterministic: the sum of a chunk runs over the streams, of a part over its chunks; the second
// kernel adds the parts. That order depends on n, C and nothing else. Bits of X' are mix_write's,
// of u read's.
#pragma once

#include "boundary_write_direct.h"
#include "boundary_write_staged_chunk.h"

namespace hyperstreams::cuda {

/// Masked kernels, and direct ones, exist with the most tiles alone; direct ones per stream are
/// masked.
template <class S, int kN>
Status launch_write_streams(const BoundaryWriteArgs& args, const BoundaryPlan& plan,
                            Stream stream) {
  constexpr int kMost = kBoundaryTiles<kN>;
  const auto queue = [&](auto kernel) { return launch(kernel, plan.write, stream, args); };
  if (plan.per_stream) {
    return plan.direct ? queue(boundary_write_direct_kernel<S, kN, 1, true, false>)
                       : queue(boundary_write_staged_kernel<S, kN, 1, true>);
  }
  if (plan.direct) {
    return plan.whole_vectors ? queue(boundary_write_direct_kernel<S, kN, kMost, false, true>)
                              : queue(boundary_write_direct_kernel<S, kN, kMost, false, false>);
  }
  if constexpr (kN == 4) {
    if (plan.tiles == 3) return queue(boundary_write_staged_kernel<S, kN, 3, false>);
  }
  return queue(boundary_write_staged_kernel<S, kN, kMost, false>);
}

template <class S>
Status boundary_write(const BoundaryWriteArgs& args, const BoundaryPlan& plan, Stream stream) {
  switch (args.write.n_streams) {
    case 1:
      return launch_write_streams<S, 1>(args, plan, stream);
    case 2:
      return launch_write_streams<S, 2>(args, plan, stream);
    case 3:
      return launch_write_streams<S, 3>(args, plan, stream);
    default:
      return launch_write_streams<S, 4>(args, plan, stream);
  }
}

}  // namespace hyperstreams::cuda
