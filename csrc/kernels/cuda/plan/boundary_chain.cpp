// Scratch of boundary where it runs op by op; what each number means stands in the contract.
#include "hyperstreams/plan.h"
#include "layout.h"

namespace hyperstreams::cuda {

BoundaryChainScratch plan_boundary_chain(const BoundaryShape& s, bool backward) {
  BoundaryChainScratch scratch = {};
  ScratchLayout layout;
  const int64_t n = s.n_streams, rows = s.tokens * (s.per_stream ? n : 1);
  const ProjectShape project = {rows, s.per_stream ? 1 : s.n_streams, s.width, s.logits, s.dtype};
  const bool has_controller = s.logits > 0;
  scratch.map = layout.take(backward ? s.single.backward.scratch : s.single.forward.scratch);
  if (!backward) {
    scratch.project = layout.take(has_controller ? plan_project(project, 1).workspace : 0);
    scratch.size = layout.size();
    return scratch;
  }
  const int64_t streams = ceil_div(s.tokens * n * s.width * element_bytes(s.dtype), 4);
  scratch.state = layout.take(streams);
  scratch.gradient = layout.take(streams);
  if (has_controller) {
    scratch.project = layout.take(plan_project_backward(project, 1).workspace);
    scratch.grad_pre = layout.take(s.tokens * n);
    scratch.grad_logits = layout.take(s.tokens * s.coefficients);
    scratch.grad_rms = layout.take(rows);
    scratch.coefficients = layout.take(s.single.partials * 4 * s.coefficients);
  }
  const MixWritePlan write = plan_mix_write(s.tokens, s.width, s.dtype, 1, true);
  scratch.write = layout.take(write.backward.partials * 2 * (n * n + n));
  scratch.bias = layout.take(write.bias.parts * s.width);
  scratch.read =
      layout.take(plan_read(s.tokens, s.width, s.dtype, 1, true).backward.partials * 2 * n);
  scratch.size = layout.size();
  return scratch;
}

}  // namespace hyperstreams::cuda
