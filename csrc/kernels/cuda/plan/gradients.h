// Sizes of boundary's second backward kernel, which its plan and the kernel share.
#pragma once

#include <cstdint>

namespace hyperstreams::cuda {

// A block has a slab of channels of all n streams; 16 lanes share a token, 4 channels each.
constexpr int kSlabChannels = 64;
constexpr int kSlabLanes = 16;
constexpr int kQuadChannels = kSlabChannels / kSlabLanes;
// Tokens and channels of a matrix instruction.
constexpr int kMatrixSize = 16;
constexpr int kSlabMatrices = kSlabChannels / kMatrixSize;

/// Pieces of grad_logits and W, and the number of orders of products that are taken.
constexpr int gradient_pieces(int element_bytes) { return element_bytes == 4 ? 3 : 2; }

/// Tokens that a block takes at a time, in groups of 16; a thread for every token and lane.
constexpr int gradient_tokens(int element_bytes) { return element_bytes == 4 ? 16 : 32; }

// What a group of 16 tokens needs beside its rows, prepared once for all slabs, in 16-byte vectors:
//   [token][stream j][group_row_floats]   h_res[j, :], h_post[j], weight[j], factor[j]
//   [set][piece][lane]        grad_logits, [16 tokens, 16 logits]: by step or, per stream, stream
//   [tile][piece][lane] / 2   grad_logits, [16 tokens, 8 logits]: by tile or, per stream, stream

constexpr int group_row_floats(int n) { return n == 1 ? 4 : 8; }
constexpr int group_row_vectors(int n) { return kMatrixSize * n * group_row_floats(n) / 4; }
constexpr int group_vectors(int n, int pieces, int sets, int tiles) {
  return group_row_vectors(n) + pieces * (32 * sets + 16 * tiles);
}

/// The most that any number of logits up to 8 tiles takes.
constexpr int most_group_vectors(int n, int pieces, int tiles) {
  const int steps = (tiles + 1) / 2;
  return group_vectors(n, pieces, n > steps ? n : steps, n > tiles ? n : tiles);
}

// A block that adds slabs has a thread for every 4 of the n n + 2n sums of a token.
constexpr int kSumThreads = 192, kSumVector = 4;

/// Tokens that it takes at a time: whole vectors of any n.
constexpr int sum_tokens(int n) {
  return kSumThreads * kSumVector / (n * n + 2 * n) / kSumVector * kSumVector;
}

/// Vectors of a row of a slab in shared memory: one more than it has, so that rows begin in
/// different banks.
constexpr int slab_row_vectors(int element_bytes) { return kSlabChannels * element_bytes / 16 + 1; }

/// Shared memory of a block: two stages of rows and groups; X'; grad_logits W; W; bias and its
/// gradients by thread.
constexpr int gradient_shared_bytes(int n, int tiles, int element_bytes) {
  const int tokens = gradient_tokens(element_bytes), row = slab_row_vectors(element_bytes);
  const int pieces = gradient_pieces(element_bytes);
  const int stage = tokens * ((2 * n + 1) * row + slab_row_vectors(4)) +
                    tokens / kMatrixSize * most_group_vectors(n, pieces, tiles);
  const int product = tokens * (n * kSlabLanes + 4);
  const int weights = kSlabMatrices * n * ((tiles + 1) / 2) * pieces * 32;
  return 16 * (2 * stage + n * tokens * row + product + weights + kSlabLanes + tokens * kSlabLanes);
}

}  // namespace hyperstreams::cuda
