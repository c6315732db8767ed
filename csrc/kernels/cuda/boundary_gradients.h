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

#include "boundary_gradients_block.h"
#include "boundary_gradients_copies.h"
#include "boundary_gradients_products.h"
#include "boundary_gradients_token.h"

namespace hyperstreams::cuda {

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
