// The tensors of a mix and write, for mix_write and boundary.
#pragma once

#include "hyperstreams/mix_write.h"
#include "tensors.h"

namespace hyperstreams::torch_binding {

/// The inputs that forward and backward share, checked.
struct MixWriteInputs {
  Streams x;
  DType y_dtype;
  Rows y;
  std::optional<Rows> h_res;
  Rows h_post;
  std::optional<Rows> bias;

  MixWriteInputs(const Tensor& x_, const Tensor& y_, const std::optional<Tensor>& h_res_,
                 const Tensor& h_post_, const std::optional<Tensor>& bias_, const char* op)
      : x(x_, op),
        y_dtype(dtype_of(y_, op)),
        y(y_, 1, x.tokens, x.width, y_.scalar_type(), op, "y"),
        h_post(h_post_, 1, x.tokens, x.n_streams, coefficient_type(x.dtype), op, "h_post") {
    const ScalarType type = coefficient_type(x.dtype);
    if (h_res_) h_res.emplace(*h_res_, 2, x.tokens, x.n_streams * x.n_streams, type, op, "h_res");
    if (bias_) bias.emplace(*bias_, 1, x.tokens, x.width, type, op, "bias");
    STD_TORCH_CHECK(!bias || bias->is_static, op, ": bias must be [C]");
  }

  RowsView h_res_view() const { return h_res ? h_res->view : RowsView{nullptr, 0}; }
  const void* bias_data() const { return bias ? bias->view.data : nullptr; }
};

}  // namespace hyperstreams::torch_binding
