// boundary on the CPU, forward: the single ops, one after the other, on tiles of tokens whose X'
// stays in the second-level cache.
#include "hyperstreams/boundary.h"

#include <optional>

#include "boundary_tile.h"
#include "coefficient_tile.h"
#include "token_ranges.h"

namespace hyperstreams::cpu {
namespace HYPERSTREAMS_ISA_NAMESPACE {
namespace {

/// What the write of the tile from token t on will touch.
Ahead next_tile(const BoundaryArgs& args, int64_t t, int64_t rows) {
  Ahead next;
  const int64_t tokens = args.read.tokens - t < rows ? args.read.tokens - t : rows;
  if (!args.write || tokens <= 0) return next;
  const MixWriteArgs& w = *args.write;
  add_rows(w.x, t, tokens, w.n_streams, w.width, w.dtype, &next);
  add_rows(w.y, t, tokens, w.width, w.y_dtype, &next);
  add_rows({w.x_out, w.n_streams * w.width, w.width}, t, tokens, w.n_streams, w.width, w.dtype,
           &next);
  return next;
}

template <class T>
void forward(const BoundaryArgs& args, ParallelFor parallel_for) {
  const ReadArgs& read = args.read;
  const int64_t row_bytes = read.n_streams * read.width * size_of(read.dtype);
  const int64_t rows = boundary_tile_rows(row_bytes);
  const int64_t tiles = (read.tokens + rows - 1) / rows;
  std::optional<CoefficientPlan<T>> plan;
  if (args.project && read.tokens > 0) {
    const CoefficientsArgs& c = *args.coefficients;
    project_prepare(*args.project, parallel_for);
    plan.emplace(c.settings, c.alpha, c.bias);
  }
  parallel(parallel_for, tiles, 1, [&](int64_t begin, int64_t end) {
    std::optional<CoefficientTile<T>> tile;
    if (plan) tile.emplace(*plan);
    for (int64_t t = begin * rows; t < end * rows && t < read.tokens; t += rows) {
      const int64_t last = read.tokens - t < rows ? read.tokens : t + rows;
      if (args.write) mix_write_tokens(*args.write, t, last);
      if (plan) {
        Ahead next = next_tile(args, last, rows);
        project_tokens(*args.project, t * plan->rms, last * plan->rms, next);
        coefficients_tokens(*args.coefficients, *tile, t, last);
      }
      read_tokens(read, t, last);
    }
  });
}

}  // namespace

void boundary_forward(const BoundaryArgs& args, ParallelFor parallel_for) {
  if (args.read.dtype == DType::kFloat64) return forward<double>(args, parallel_for);
  forward<float>(args, parallel_for);
}

}  // namespace HYPERSTREAMS_ISA_NAMESPACE

HYPERSTREAMS_CPU_ENTRY(boundary_forward, BoundaryArgs)

}  // namespace hyperstreams::cpu
