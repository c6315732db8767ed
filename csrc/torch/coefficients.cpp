// Torch ops of coefficients; the contract stands in hyperstreams/coefficients.h.
#include "hyperstreams/coefficients.h"

#include <tuple>

#include "coefficient_settings.h"

namespace hyperstreams::torch_binding {
namespace {

/// Trailing dimensions of logits that belong to one token, once the shapes are known to agree:
/// logits [..., K] or, per stream, [..., n, 2 + n]; inv_rms without the last axis of logits.
int64_t checked_rank(const Tensor& logits, const std::optional<Tensor>& inv_rms,
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

RowsView view_or_none(const std::optional<Rows>& rows) {
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
      return v.is_cpu() && v.scalar_type() == type && v.dim() == 1 && v.size(0) == size;
    };
    STD_TORCH_CHECK(is_vector(scale, 2 + s.mix_groups), op, ": alpha must be [", 2 + s.mix_groups,
                    "] in the dtype of logits");
    STD_TORCH_CHECK(is_vector(offset, logit_count), op, ": bias must be [", logit_count,
                    "] in the dtype of logits");
  }
};

std::tuple<Tensor, Tensor, Tensor> coefficients(const Tensor& logits,
                                                const std::optional<Tensor>& inv_rms,
                                                const Tensor& alpha, const Tensor& bias,
                                                int64_t n_streams, int64_t map,
                                                const std::vector<int64_t>& settings,
                                                const std::vector<double>& constants) {
  const char* op = "coefficients";
  const CoefficientSettings s = coefficient_settings(n_streams, map, settings, constants, op);
  const Controller c(logits, inv_rms, alpha, bias, s, op);
  Tensor h_pre = new_empty(logits, shape_with_tail(logits, c.rank, {n_streams}), c.type);
  Tensor h_post = new_empty(logits, shape_with_tail(logits, c.rank, {n_streams}), c.type);
  Tensor h_res =
      s.map == MapKind::kIdentity
          ? new_empty(logits, {0}, c.type)
          : new_empty(logits, shape_with_tail(logits, c.rank, {n_streams, n_streams}), c.type);
  cpu::coefficients_forward(
      {c.tokens, c.dtype, s, c.logits.view, view_or_none(c.inv_rms), c.alpha.const_data_ptr(),
       c.bias.const_data_ptr(), h_pre.mutable_data_ptr(), h_post.mutable_data_ptr(),
       h_res.mutable_data_ptr()},
      parallel_for);
  return {h_pre, h_post, h_res};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> coefficients_backward(
    const Tensor& grad_h_pre, const Tensor& grad_h_post, const Tensor& grad_h_res,
    const Tensor& logits, const std::optional<Tensor>& inv_rms, const Tensor& alpha,
    const Tensor& bias, const std::optional<Tensor>& h_pre, const std::optional<Tensor>& h_post,
    int64_t n_streams, int64_t map, const std::vector<int64_t>& settings,
    const std::vector<double>& constants) {
  const char* op = "coefficients_backward";
  const CoefficientSettings s = coefficient_settings(n_streams, map, settings, constants, op);
  const Controller c(logits, inv_rms, alpha, bias, s, op);
  const Rows pre(grad_h_pre, 1, c.tokens, n_streams, c.type, op, "grad_h_pre");
  const Rows post(grad_h_post, 1, c.tokens, n_streams, c.type, op, "grad_h_post");
  std::optional<Rows> res, known_pre, known_post;
  if (h_pre) known_pre.emplace(*h_pre, 1, c.tokens, n_streams, c.type, op, "h_pre");
  if (h_post) known_post.emplace(*h_post, 1, c.tokens, n_streams, c.type, op, "h_post");
  if (s.map != MapKind::kIdentity) {
    res.emplace(grad_h_res, 2, c.tokens, n_streams * n_streams, c.type, op, "grad_h_res");
  }
  Tensor grad_logits = new_empty_as(logits);
  Tensor grad_inv_rms = inv_rms ? new_empty_as(*inv_rms) : new_empty(logits, {0}, c.type);
  Tensor grad_alpha = new_empty_as(alpha);
  Tensor grad_bias = new_empty_as(bias);
  Tensor partials =
      new_empty(logits, {token_partitions(c.tokens) * (2 + s.mix_groups + c.logit_count)},
                ScalarType::Double);
  cpu::coefficients_backward(
      {c.tokens, c.dtype, s, pre.view, post.view, view_or_none(res), c.logits.view,
       view_or_none(c.inv_rms), c.alpha.const_data_ptr(), c.bias.const_data_ptr(),
       grad_logits.mutable_data_ptr(), inv_rms ? grad_inv_rms.mutable_data_ptr() : nullptr,
       grad_alpha.mutable_data_ptr(), grad_bias.mutable_data_ptr(),
       static_cast<double*>(partials.mutable_data_ptr()), view_or_none(known_pre),
       view_or_none(known_post)},
      parallel_for);
  return {grad_logits, grad_inv_rms, grad_alpha, grad_bias};
}

}  // namespace
}  // namespace hyperstreams::torch_binding

STABLE_TORCH_LIBRARY_FRAGMENT(hyperstreams, m) {
  m.def(
      "_coefficients(Tensor logits, Tensor? inv_rms, Tensor alpha, Tensor bias, int n_streams, "
      "int map, int[] settings, float[] constants) -> (Tensor, Tensor, Tensor)");
  m.def(
      "_coefficients_backward(Tensor grad_h_pre, Tensor grad_h_post, Tensor grad_h_res, "
      "Tensor logits, Tensor? inv_rms, Tensor alpha, Tensor bias, Tensor? h_pre, Tensor? h_post, "
      "int n_streams, int map, int[] settings, float[] constants) -> (Tensor, Tensor, Tensor, "
      "Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(hyperstreams, CPU, m) {
  m.impl("_coefficients", TORCH_BOX(&hyperstreams::torch_binding::coefficients));
  m.impl("_coefficients_backward", TORCH_BOX(&hyperstreams::torch_binding::coefficients_backward));
}
