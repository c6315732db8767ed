// CUDA implementation of the torch op of stream_stats; its schema is registered with the CPU op.
#include "hyperstreams/stream_stats.h"

#include "../stream_stats_tensors.h"
#include "device.h"
#include "hyperstreams/plan.h"

namespace hyperstreams::torch_binding {
namespace {

Tensor stream_stats(const Tensor& x, const std::optional<Tensor>& y,
                    const std::optional<Tensor>& h_pre, const std::optional<Tensor>& h_post,
                    const std::optional<Tensor>& h_res) {
  const char* op = "stream_stats";
  const OnDevice device(x, op);
  if (y) device.require(*y, op, "y");
  if (h_pre) device.require(*h_pre, op, "h_pre");
  if (h_post) device.require(*h_post, op, "h_post");
  if (h_res) device.require(*h_res, op, "h_res");
  const auto parts = [](const Streams& s) {
    return cuda::plan_stream_stats(s.tokens, s.width, s.dtype, 1).owners.partials;
  };
  StreamStatsTensors tensors(x, y, h_pre, h_post, h_res, parts, op);
  check_status(cuda::stream_stats(tensors.args(), device.stream()), op);
  return tensors.stats;
}

}  // namespace
}  // namespace hyperstreams::torch_binding

STABLE_TORCH_LIBRARY_IMPL(hyperstreams, CUDA, m) {
  m.impl("_stream_stats", TORCH_BOX(&hyperstreams::torch_binding::stream_stats));
}
