// The adjoint of coefficients on tiles of tokens, for coefficients and boundary.
#pragma once

#include "coefficient_tile.h"

namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE {

/// Whether act's own value is the coefficient divided by the factor, without rounding.
inline bool is_exact_quotient(const ActivationSettings& a) {
  int exponent = 0;
  return !a.outside && a.offset == 0 && std::abs(std::frexp(a.factor, &exponent)) == 0.5;
}

/// The adjoint of a tile, and the parameter gradients of the tiles so far.
template <class T>
struct CoefficientAdjointTile : CoefficientTile<T> {
  using lanes_t = Lanes<T>;
  using CoefficientTile<T>::plan;
  LaneArray<T> grad;         // of the activation stage's values, in joint order
  LaneArray<T> grad_logits;  // as in the rows
  LaneArray<T> grad_h_res, grad_inv_rms;
  LaneArray<T> parameters;  // [groups + logits]

  explicit CoefficientAdjointTile(const CoefficientPlan<T>& p)
      : CoefficientTile<T>(p, p.map.backward_scratch, 3 * p.logits + p.n * p.n + p.rms + p.groups),
        grad(this->storage.take(p.logits)),
        grad_logits(this->storage.take(p.logits)),
        grad_h_res(this->storage.take(p.n * p.n)),
        grad_inv_rms(this->storage.take(p.rms)),
        parameters(this->storage.take(p.groups + p.logits)) {}

  /// What the adjoint needs of `count` tokens from token t: logits, inv_rms, act's own values and
  /// the map's logits.
  void load(const CoefficientsBackwardArgs& args, int64_t t, int64_t count) {
    this->load_logits(args.logits, args.inv_rms, t, count);
    load_acted(plan.stages[0], args.h_pre, t, count);
    load_acted(plan.stages[1], args.h_post, t, count);
    const Stage& mix = plan.stages[2];
    if (plan.map.backward || mix.activation->kind != ActivationKind::kNone) this->activate(mix);
  }

  void load_acted(const Stage& stage, const RowsView& coefficients, int64_t t, int64_t count) {
    const ActivationSettings& activation = *stage.activation;
    if (activation.kind == ActivationKind::kNone) return;
    if (!coefficients.data || !is_exact_quotient(activation)) return this->activate(stage);
    lanes_t* acted = this->acted.data() + stage.begin;
    load_rows(coefficients, t, count, plan.n, acted);
    const lanes_t inverse = lanes_t::set(static_cast<T>(1 / activation.factor));
    for (int k = 0; k < plan.n; ++k) acted[k] = acted[k] * inverse;
  }

  /// From grad to grad_logits and grad_inv_rms; adds to the parameter gradients.
  void activation_adjoint() {
    for (lanes_t& g : grad_inv_rms) g = lanes_t::set(0);
    for (const Stage& stage : plan.stages) {
      dispatch_activation(*stage.activation, [&](auto form) { stage_adjoint(stage, form); });
    }
  }

  template <class Form>
  HYPERSTREAMS_INLINE void stage_adjoint(const Stage& stage, Form) {
    for (int k = stage.begin; k < stage.end;) {
      int end = k + 1;
      while (end < stage.end && plan.group[end] == plan.group[k]) ++end;
      if (plan.rms == 1) {
        group_adjoint<Form>(stage, k, end);
      } else {
        per_stream_adjoint<Form>(stage, k, end);
      }
      k = end;
    }
  }

  // In a group z and its gradient are logits and slopes times what all have in common: with one
  // inv_rms a single sum over logits gives both grad_alpha and grad_inv_rms. Lanes may alias
  // anything, pointers inside *this too: those that the loop uses are copied.
  template <class Form>
  HYPERSTREAMS_INLINE void group_adjoint(const Stage& stage, int begin, int end) {
    constexpr bool is_linear = Form::kind == ActivationKind::kNone;
    const lanes_t *from = this->logits.data(), *acted = this->acted.data();
    const lanes_t* of_values = grad.data();
    lanes_t *out = grad_logits.data(), *of_bias = parameters.data() + plan.groups;
    const lanes_t factor = lanes_t::set(static_cast<T>(stage.activation->factor));
    const lanes_t rms = this->inv_rms[0], scale = lanes_t::set(plan.scale[begin]);
    const lanes_t from_slope = scale * rms;
    lanes_t with_values = lanes_t::set(0);
    const auto logit_adjoint = [&](int k, lanes_t& with_logits) {
      const lanes_t of_value = of_values[k] * factor;
      const lanes_t slope = is_linear ? of_value : of_value * act_slope<Form::kind>(acted[k]);
      with_logits = fma(slope, from[k], with_logits);
      if (Form::outside && !is_linear) with_values = fma(of_value, acted[k], with_values);
      of_bias[k] = of_bias[k] + (Form::outside ? of_value : slope);
      out[k] = slope * from_slope;
    };
    // Two sums: one alone would be waited for at every logit.
    lanes_t even = lanes_t::set(0), odd = lanes_t::set(0);
    int k = begin;
    for (; k + 2 <= end; k += 2) {
      logit_adjoint(k, even);
      logit_adjoint(k + 1, odd);
    }
    if (k < end) logit_adjoint(k, even);
    const lanes_t with_logits = even + odd;
    lanes_t& of_alpha = parameters[plan.group[begin]];
    of_alpha =
        Form::outside && !is_linear ? of_alpha + with_values : fma(rms, with_logits, of_alpha);
    grad_inv_rms[0] = fma(scale, with_logits, grad_inv_rms[0]);
  }

  template <class Form>
  HYPERSTREAMS_INLINE void per_stream_adjoint(const Stage& stage, int begin, int end) {
    const CoefficientPlan<T>& p = plan;
    const lanes_t factor = lanes_t::set(static_cast<T>(stage.activation->factor));
    const lanes_t scale = lanes_t::set(p.scale[begin]);
    lanes_t of_alpha = parameters[p.group[begin]];
    for (int k = begin; k < end; ++k) {
      const int i = p.stream[k], place = p.place[k];
      const lanes_t x = this->logits[place], rms = this->inv_rms[i], z = x * rms;
      const lanes_t y = Form::kind == ActivationKind::kNone ? z : this->acted[k];
      const lanes_t of_value = grad[k] * factor;
      const lanes_t slope = of_value * act_slope<Form::kind>(y);
      const lanes_t of_bias = Form::outside ? of_value : slope;
      const lanes_t of_z = slope * scale;
      of_alpha = fma(of_bias, Form::outside ? y : z, of_alpha);
      parameters[p.groups + k] = parameters[p.groups + k] + of_bias;
      grad_logits[place] = of_z * rms;
      grad_inv_rms[i] = fma(of_z, x, grad_inv_rms[i]);
    }
    parameters[p.group[begin]] = of_alpha;
  }

  /// Moves the parameter gradients into sums [groups + logits].
  void flush(double* sums) {
    for (int k = 0; k < plan.groups + plan.logits; ++k) {
      sums[k] += parameters[k].sum();
      parameters[k] = lanes_t::set(0);
    }
  }
};

/// grad_logits and grad_inv_rms of tokens [begin, end); adds to the tile's parameter gradients. For
/// float and double.
template <class T>
void coefficients_adjoint_tokens(const CoefficientsBackwardArgs& args,
                                 CoefficientAdjointTile<T>& tile, int64_t begin, int64_t end);

/// grad_alpha and grad_bias from args.partials [parts, groups + logits].
template <class T>
void coefficients_adjoint_finish(const CoefficientsBackwardArgs& args,
                                 const CoefficientPlan<T>& plan, int64_t parts);

}  // namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE
