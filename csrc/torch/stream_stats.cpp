// Binding of stream_stats (see the contract hyperstreams/stream_stats.h).
#include "hyperstreams/stream_stats.h"

#include "stream_stats_tensors.h"

namespace hyperstreams::torch_binding {
namespace {

Tensor stream_stats(const Tensor& x, const std::optional<Tensor>& y,
                    const std::optional<Tensor>& h_pre, const std::optional<Tensor>& h_post,
                    const std::optional<Tensor>& h_res) {
  const auto parts = [](const Streams& streams) { return token_partitions(streams.tokens); };
  StreamStatsTensors tensors(x, y, h_pre, h_post, h_res, parts, "stream_stats");
  cpu::stream_stats(tensors.args(), parallel_for);
  return tensors.stats;
}

}  // namespace
}  // namespace hyperstreams::torch_binding

STABLE_TORCH_LIBRARY_FRAGMENT(hyperstreams, m) {
  m.def(
      "_stream_stats(Tensor x, Tensor? y, Tensor? h_pre, Tensor? h_post, Tensor? h_res) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(hyperstreams, CPU, m) {
  m.impl("_stream_stats", TORCH_BOX(&hyperstreams::torch_binding::stream_stats));
}
