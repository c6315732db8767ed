// The checked inputs and the output of stream_stats, on either device.
#pragma once

#include "hyperstreams/stream_stats.h"
#include "tensors.h"

namespace hyperstreams::torch_binding {

struct StreamStatsTensors {
  Streams x;
  DType y_dtype;
  std::optional<Rows> y, h_pre, h_post, h_res;
  int64_t sequence;
  Tensor stats;
  Scratch partials;

  /// `parts`: a function of the streams, the rows of scratch.
  template <class Parts>
  StreamStatsTensors(const Tensor& x_, const std::optional<Tensor>& y_,
                     const std::optional<Tensor>& h_pre_, const std::optional<Tensor>& h_post_,
                     const std::optional<Tensor>& h_res_, const Parts& parts, const char* op)
      : x(x_, op),
        y_dtype(y_ ? dtype_of(*y_, op) : x.dtype),
        sequence(x_.dim() >= 3 && x_.size(x_.dim() - 3) > 0 ? x_.size(x_.dim() - 3) : 1),
        stats(new_empty(x_, {stream_stats_size(x.n_streams)}, ScalarType::Double)),
        partials(x_, parts(x) * stream_stats_size(x.n_streams), ScalarType::Double) {
    const int n = x.n_streams;
    const ScalarType type = coefficient_type(x.dtype);
    if (y_) y.emplace(*y_, 1, x.tokens, x.width, y_->scalar_type(), op, "y");
    if (h_pre_) h_pre.emplace(*h_pre_, 1, x.tokens, n, type, op, "h_pre");
    if (h_post_) h_post.emplace(*h_post_, 1, x.tokens, n, type, op, "h_post");
    if (h_res_) h_res.emplace(*h_res_, 2, x.tokens, n * n, type, op, "h_res");
    STD_TORCH_CHECK(!y || !y->is_static || x.tokens == 1, op,
                    ": y must be [..., C] beside streams");
  }

  StreamStatsArgs args() {
    const auto view = [](const std::optional<Rows>& rows) {
      return rows ? rows->view : RowsView{nullptr, 0};
    };
    return {x.tokens,
            sequence,
            x.n_streams,
            x.width,
            x.dtype,
            y_dtype,
            x.view,
            view(y),
            view(h_pre),
            view(h_post),
            view(h_res),
            partials.doubles(),
            static_cast<double*>(stats.mutable_data_ptr())};
  }
};

}  // namespace hyperstreams::torch_binding
