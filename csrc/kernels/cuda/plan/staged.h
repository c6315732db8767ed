// Dynamic shared memory of kernels that bring what they read in stages, which their plans and the
// kernels share. In words of 16 bytes.
#pragma once

namespace hyperstreams::cuda {

/// Of boundary's write, one of two stages: W in three pieces, and the bias of 32 channels.
constexpr int staged_write_stage(int n, int tiles, bool per_stream) {
  return (per_stream ? 1 : n) * tiles * 3 * 32 + 32 / 4;
}

/// Of a warp: two tokens' X and y for every lane, h_res and h_post of 16 tokens, the part's sums.
constexpr int staged_write_warp(int n, int tiles, bool per_stream, int element_bytes) {
  const int slots = 2 * (n * element_bytes / 2 + 2) * 32;
  return slots + 16 * ((n * (n + 1) + 3) / 4) + (per_stream ? n : 1) * (tiles + 1) * 32;
}

constexpr int staged_write_bytes(int n, int tiles, bool per_stream, int element_bytes, int warps) {
  return 16 * (2 * staged_write_stage(n, tiles, per_stream) +
               warps * staged_write_warp(n, tiles, per_stream, element_bytes));
}

/// Of project's forward, three stages of two chunks: phi in three pieces, and 8 channels of a
/// lane's tokens, 4 of bfloat16 or 2, for each of `threads`.
constexpr int project_stage_bytes(int tiles, int element_bytes, int tokens, int threads) {
  const int weights = 2 * tiles * 3 * 32 * 16, x = 2 * tokens * 8 * element_bytes;
  return 3 * (weights + x * threads);
}

}  // namespace hyperstreams::cuda
