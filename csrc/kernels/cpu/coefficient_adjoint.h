// The adjoint of coefficients on tiles of tokens, for coefficients and boundary.
#pragma once

#include "coefficient_tile.h"

namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE {

/// The adjoint of a tile, and the parameter gradients of the tiles so far.
template <class T>
struct CoefficientAdjointTile : CoefficientTile<T> {
  using lanes_t = Lanes<T>;
  using CoefficientTile<T>::plan;
  std::vector<lanes_t> grad;         // of the activation stage's values, in joint order
  std::vector<lanes_t> grad_logits;  // as in the rows
  std::vector<lanes_t> grad_h_res, grad_inv_rms;
  std::vector<lanes_t> parameters;  // [groups + logits]

  explicit CoefficientAdjointTile(const CoefficientPlan<T>& p)
      : CoefficientTile<T>(p),
        grad(static_cast<size_t>(p.logits)),
        grad_logits(static_cast<size_t>(p.logits)),
        grad_h_res(static_cast<size_t>(p.n * p.n)),
        grad_inv_rms(static_cast<size_t>(p.rms)),
        parameters(static_cast<size_t>(p.groups + p.logits), lanes_t::set(0)) {}

  /// From grad to grad_logits and grad_inv_rms; adds to the parameter gradients.
  void activation_adjoint() {
    for (lanes_t& g : grad_inv_rms) g = lanes_t::set(0);
    for (const Stage& stage : plan.stages) {
      dispatch_activation(*stage.activation, [&](auto form) { stage_adjoint(stage, form); });
    }
  }

  // Sums stay in registers while they are the same one's: those of a group, and inv_rms when there
  // is one of it. Pointers are copied as in activate().
  template <class Form>
  HYPERSTREAMS_INLINE void stage_adjoint(const Stage& stage, Form) {
    const CoefficientPlan<T>& p = plan;
    const lanes_t *from = this->logits.data(), *z = this->z.data(), *acted = this->acted.data();
    const lanes_t *rms = this->inv_rms.data(), *of_values = grad.data();
    lanes_t *out = grad_logits.data(), *of_rms = grad_inv_rms.data(), *sums = parameters.data();
    const lanes_t factor = lanes_t::set(static_cast<T>(stage.activation->factor));
    const bool one_rms = p.rms == 1;
    const int end = stage.end, groups = p.groups;
    lanes_t rms_sum = of_rms[0];
    for (int k = stage.begin; k < end;) {
      const int group = p.group[k];
      const lanes_t scale = lanes_t::set(p.scale[k]);
      lanes_t of_alpha = sums[group];
      for (; k < end && p.group[k] == group; ++k) {
        const lanes_t of_value = of_values[k] * factor;
        const lanes_t sloped = of_value * act_slope<Form::kind>(acted[k]);
        const lanes_t of_bias = Form::outside ? of_value : sloped;
        of_alpha = fma(of_bias, Form::outside ? acted[k] : z[k], of_alpha);
        sums[groups + k] = sums[groups + k] + of_bias;
        const lanes_t of_z = sloped * scale;
        const int i = p.stream[k], place = p.place[k];
        out[place] = of_z * rms[i];
        if (one_rms) {
          rms_sum = fma(of_z, from[place], rms_sum);
        } else {
          of_rms[i] = fma(of_z, from[place], of_rms[i]);
        }
      }
      sums[group] = of_alpha;
    }
    if (one_rms) of_rms[0] = rms_sum;
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
