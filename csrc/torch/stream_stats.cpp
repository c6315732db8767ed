// Binding of stream_stats (see the contract hyperstreams/stream_stats.h).
#include "hyperstreams/stream_stats.h"

#include "tensors.h"

namespace hyperstreams::torch_binding {
namespace {

Tensor stream_stats(const Tensor& x, const std::optional<Tensor>& y,
                    const std::optional<Tensor>& h_pre, const std::optional<Tensor>& h_post,
                    const std::optional<Tensor>& h_res) {
  const char* op = "stream_stats";
  const Streams streams(x, op);
  const int n = streams.n_streams;
  const int64_t tokens = streams.tokens;
  const ScalarType type = coefficient_type(streams.dtype);
  const auto rows = [&](const std::optional<Tensor>& tensor, int64_t inner, int64_t row,
                        ScalarType dtype, const char* name) {
    return tensor ? std::optional<Rows>(std::in_place, *tensor, inner, tokens, row, dtype, op, name)
                  : std::nullopt;
  };
  const auto view = [](const std::optional<Rows>& value) {
    return value ? value->view : RowsView{nullptr, 0};
  };
  const std::optional<Rows> branch = rows(y, 1, streams.width, y ? y->scalar_type() : type, "y");
  const std::optional<Rows> pre = rows(h_pre, 1, n, type, "h_pre");
  const std::optional<Rows> post = rows(h_post, 1, n, type, "h_post");
  const std::optional<Rows> res = rows(h_res, 2, n * n, type, "h_res");
  const int64_t size = stream_stats_size(n);
  Tensor stats = new_empty(x, {size}, ScalarType::Double);
  const Scratch partials(x, token_partitions(tokens) * size, ScalarType::Double);
  const int64_t sequence = x.dim() >= 3 && x.size(x.dim() - 3) > 0 ? x.size(x.dim() - 3) : 1;
  cpu::stream_stats(
      {tokens, sequence, n, streams.width, streams.dtype, y ? dtype_of(*y, op) : streams.dtype,
       streams.view, view(branch), view(pre), view(post), view(res), partials.doubles(),
       static_cast<double*>(stats.mutable_data_ptr())},
      parallel_for);
  return stats;
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
