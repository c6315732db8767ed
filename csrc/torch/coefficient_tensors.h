// The checked inputs and the outputs of coefficients and its adjoint, on either device.
#pragma once

#include <tuple>

#include "coefficient_settings.h"
#include "hyperstreams/coefficients.h"

namespace hyperstreams::torch_binding {

/// Trailing dimensions of logits that belong to one token, once the shapes are known to agree:
/// logits [..., K] or, per stream, [..., n, 2 + n]; inv_rms without the last axis of logits.
inline int64_t checked_rank(const Tensor& logits, const std::optional<Tensor>& inv_rms,
                            const CoefficientSettings& s, const char* op) {
  const int64_t n = s.n_streams, rank = s.per_stream ? 2 : 1, dim = logits.dim();
  const int64_t last =
      s.per_stream ? 2 + n : 2 * n + mix_logit_count(s.map, s.map_settings, s.n_streams);
  STD_TORCH_CHECK(
      dim >= rank && logits.size(dim - 1) == last && (!s.per_stream || logits.size(dim - 2) == n),
      op, ": logits: expected a last axis of ", last,
      s.per_stream ? " after one of n_streams" : "");
  bool agree = !inv_rms || inv_rms->dim() == dim - 1;
  for (int64_t d = 0; inv_rms && agree && d < dim - 1; ++d) {
    agree = inv_rms->size(d) == logits.size(d);
  }
  STD_TORCH_CHECK(agree, op, ": inv_rms: expected the shape of logits without its last axis");
  return rank;
}

inline RowsView view_or_none(const std::optional<Rows>& rows) {
  return rows ? rows->view : RowsView{nullptr, 0};
}

/// The checked inputs of both ops.
struct Controller {
  int64_t rank;
  int64_t logit_count, tokens;
  DType dtype;
  ScalarType type;
  Rows logits;
  std::optional<Rows> inv_rms;
  Tensor alpha, bias;

  Controller(const Tensor& z, const std::optional<Tensor>& rms, const Tensor& scale,
             const Tensor& offset, const CoefficientSettings& s, const char* op)
      : rank(checked_rank(z, rms, s, op)),
        logit_count(2 * s.n_streams + mix_logit_count(s.map, s.map_settings, s.n_streams)),
        tokens(z.numel() / logit_count),
        dtype(z.scalar_type() == ScalarType::Double ? DType::kFloat64 : DType::kFloat32),
        type(coefficient_type(dtype)),
        logits(z, rank, tokens, logit_count, type, op, "logits"),
        alpha(as_contiguous(scale)),
        bias(as_contiguous(offset)) {
    const int64_t values = s.per_stream ? s.n_streams : 1;
    if (rms) inv_rms.emplace(*rms, rank - 1, tokens, values, type, op, "inv_rms");
    const auto is_vector = [&](const Tensor& v, int64_t size) {
      return is_on_device(v) && v.scalar_type() == type && v.dim() == 1 && v.size(0) == size;
    };
    STD_TORCH_CHECK(is_vector(scale, 2 + s.mix_groups), op, ": alpha must be [", 2 + s.mix_groups,
                    "] in the dtype of logits");
    STD_TORCH_CHECK(is_vector(offset, logit_count), op, ": bias must be [", logit_count,
                    "] in the dtype of logits");
  }

  RowsView inv_rms_view() const { return view_or_none(inv_rms); }
};

/// Forward's outputs and scratch.
struct Coefficients {
  Tensor h_pre, h_post, h_res;
  Scratch scratch;

  Coefficients(const Controller& c, const Tensor& logits, const CoefficientSettings& s,
               int64_t scratch_size)
      : h_pre(new_empty(logits, shape_with_tail(logits, c.rank, {s.n_streams}), c.type)),
        h_post(new_empty(logits, shape_with_tail(logits, c.rank, {s.n_streams}), c.type)),
        h_res(s.map == MapKind::kIdentity
                  ? new_empty(logits, {0}, c.type)
                  : new_empty(logits, shape_with_tail(logits, c.rank, {s.n_streams, s.n_streams}),
                              c.type)),
        scratch(logits, scratch_size, c.type) {}

  CoefficientsArgs args(const Controller& c, const CoefficientSettings& s) {
    return {c.tokens,
            c.dtype,
            s,
            c.logits.view,
            c.inv_rms_view(),
            c.alpha.const_data_ptr(),
            c.bias.const_data_ptr(),
            h_pre.mutable_data_ptr(),
            h_post.mutable_data_ptr(),
            h_res.mutable_data_ptr(),
            scratch.data()};
  }

  std::tuple<Tensor, Tensor, Tensor> all() const { return {h_pre, h_post, h_res}; }
};

/// Backward's other inputs, outputs and scratch.
struct CoefficientGradients {
  Rows pre, post;
  std::optional<Rows> res, known_pre, known_post;
  bool has_rms;
  Tensor grad_logits, grad_inv_rms, grad_alpha, grad_bias;
  Scratch partials, scratch;

  CoefficientGradients(const Controller& c, const Tensor& grad_h_pre, const Tensor& grad_h_post,
                       const std::optional<Tensor>& grad_h_res, const Tensor& logits,
                       const std::optional<Tensor>& inv_rms, const std::optional<Tensor>& h_pre,
                       const std::optional<Tensor>& h_post, const CoefficientSettings& s,
                       int64_t partials_size, int64_t scratch_size, const char* op)
      : pre(grad_h_pre, 1, c.tokens, s.n_streams, c.type, op, "grad_h_pre"),
        post(grad_h_post, 1, c.tokens, s.n_streams, c.type, op, "grad_h_post"),
        has_rms(inv_rms.has_value()),
        grad_logits(new_empty_as(logits)),
        grad_inv_rms(inv_rms ? new_empty_as(*inv_rms) : new_empty(logits, {0}, c.type)),
        grad_alpha(new_empty_as(c.alpha)),
        grad_bias(new_empty_as(c.bias)),
        partials(logits, partials_size, ScalarType::Double),
        scratch(logits, scratch_size, c.type) {
    if (h_pre) known_pre.emplace(*h_pre, 1, c.tokens, s.n_streams, c.type, op, "h_pre");
    if (h_post) known_post.emplace(*h_post, 1, c.tokens, s.n_streams, c.type, op, "h_post");
    if (s.map == MapKind::kIdentity) return;
    STD_TORCH_CHECK(grad_h_res, op, ": grad_h_res: expected a tensor beside a mixing matrix");
    res.emplace(*grad_h_res, 2, c.tokens, s.n_streams * s.n_streams, c.type, op, "grad_h_res");
  }

  CoefficientsBackwardArgs args(const Controller& c, const CoefficientSettings& s) {
    return {c.tokens,
            c.dtype,
            s,
            pre.view,
            post.view,
            view_or_none(res),
            c.logits.view,
            c.inv_rms_view(),
            c.alpha.const_data_ptr(),
            c.bias.const_data_ptr(),
            grad_logits.mutable_data_ptr(),
            has_rms ? grad_inv_rms.mutable_data_ptr() : nullptr,
            grad_alpha.mutable_data_ptr(),
            grad_bias.mutable_data_ptr(),
            partials.doubles(),
            scratch.data(),
            view_or_none(known_pre),
            view_or_none(known_post)};
  }

  std::tuple<Tensor, Tensor, Tensor, Tensor> all() const {
    return {grad_logits, grad_inv_rms, grad_alpha, grad_bias};
  }
};

}  // namespace hyperstreams::torch_binding
