// coefficients on the CPU: a tile of tokens in lanes passes the activation stage and the map.
#include "hyperstreams/coefficients.h"

#include "coefficient_tile.h"

namespace hyperstreams::cpu {
namespace HYPERSTREAMS_ISA_NAMESPACE {
namespace {

template <class T>
void forward(const CoefficientsArgs& args, ParallelFor parallel_for) {
  constexpr int64_t lanes = Lanes<T>::size;
  const CoefficientPlan<T> plan(args.settings, args.alpha, args.bias);
  const int n = plan.n;
  const int64_t tiles = (args.tokens + lanes - 1) / lanes;
  parallel(parallel_for, tiles, 4, [&](int64_t begin, int64_t end) {
    CoefficientTile<T> tile(plan);
    for (int64_t t = begin * lanes; t < end * lanes && t < args.tokens; t += lanes) {
      const int64_t count = args.tokens - t < lanes ? args.tokens - t : lanes;
      tile.load(args.logits, args.inv_rms, t, count);
      store_tile(tile.values.data(), count, n, static_cast<T*>(args.h_pre) + t * n);
      store_tile(tile.values.data() + n, count, n, static_cast<T*>(args.h_post) + t * n);
      if (!plan.map.forward) continue;
      plan.map.forward(*plan.map_settings, n, tile.values.data() + 2 * n, tile.h_res.data(),
                       tile.scratch.data());
      store_tile(tile.h_res.data(), count, n * n, static_cast<T*>(args.h_res) + t * n * n);
    }
  });
}

/// Tiles whose parameter gradients are added in lanes before they become double.
constexpr int kFlushInterval = 8;

/// The adjoint of a tile, and the parameter gradients of the tiles so far.
template <class T>
struct BackwardTile : CoefficientTile<T> {
  using lanes_t = Lanes<T>;
  using CoefficientTile<T>::plan;
  std::vector<lanes_t> grad;         // of the activation stage's values, in joint order
  std::vector<lanes_t> grad_logits;  // as in the rows
  std::vector<lanes_t> grad_h_res, grad_inv_rms;
  std::vector<lanes_t> parameters;  // [groups + logits]

  explicit BackwardTile(const CoefficientPlan<T>& p)
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

template <class T>
void load_rows(const RowsView& rows, int64_t t, int64_t count, int size, Lanes<T>* tile) {
  load_tile(static_cast<const T*>(rows.data) + t * rows.token_stride, rows.token_stride, count,
            size, tile);
}

template <class T>
void backward_partition(const CoefficientsBackwardArgs& args, BackwardTile<T>& tile, int64_t begin,
                        int64_t end, double* sums) {
  constexpr int64_t lanes = Lanes<T>::size;
  const CoefficientPlan<T>& plan = tile.plan;
  const int n = plan.n;
  int pending = 0;
  for (int64_t t = begin; t < end; t += lanes) {
    const int64_t count = end - t < lanes ? end - t : lanes;
    tile.load(args.logits, args.inv_rms, t, count);
    load_rows(args.grad_h_pre, t, count, n, tile.grad.data());
    load_rows(args.grad_h_post, t, count, n, tile.grad.data() + n);
    if (plan.map.backward) {
      load_rows(args.grad_h_res, t, count, n * n, tile.grad_h_res.data());
      plan.map.backward(*plan.map_settings, n, tile.values.data() + 2 * n, tile.grad_h_res.data(),
                        tile.grad.data() + 2 * n, tile.scratch.data());
    }
    tile.activation_adjoint();
    if (++pending == kFlushInterval || t + lanes >= end) {
      tile.flush(sums);
      pending = 0;
    }
    store_tile(tile.grad_logits.data(), count, plan.logits,
               static_cast<T*>(args.grad_logits) + t * plan.logits);
    if (args.grad_inv_rms) {
      store_tile(tile.grad_inv_rms.data(), count, plan.rms,
                 static_cast<T*>(args.grad_inv_rms) + t * plan.rms);
    }
  }
}

template <class T>
void backward(const CoefficientsBackwardArgs& args, ParallelFor parallel_for) {
  const CoefficientPlan<T> plan(args.settings, args.alpha, args.bias);
  const int64_t parts = token_partitions(args.tokens);
  const int sums = plan.groups + plan.logits;
  parallel(parallel_for, parts, 1, [&](int64_t begin, int64_t end) {
    BackwardTile<T> tile(plan);
    for (int64_t part = begin; part < end; ++part) {
      double* partial = args.partials + part * sums;
      for (int k = 0; k < sums; ++k) partial[k] = 0;
      backward_partition(args, tile, partition_begin(args.tokens, parts, part),
                         partition_begin(args.tokens, parts, part + 1), partial);
    }
  });
  for (int k = 0; k < sums; ++k) {
    double sum = 0;
    for (int64_t part = 0; part < parts; ++part) sum += args.partials[part * sums + k];
    T* out = static_cast<T*>(k < plan.groups ? args.grad_alpha : args.grad_bias);
    out[k < plan.groups ? k : k - plan.groups] = static_cast<T>(sum);
  }
}

}  // namespace

void coefficients_forward(const CoefficientsArgs& args, ParallelFor parallel_for) {
  if (args.dtype == DType::kFloat64) return forward<double>(args, parallel_for);
  forward<float>(args, parallel_for);
}

void coefficients_backward(const CoefficientsBackwardArgs& args, ParallelFor parallel_for) {
  if (args.dtype == DType::kFloat64) return backward<double>(args, parallel_for);
  backward<float>(args, parallel_for);
}

}  // namespace HYPERSTREAMS_ISA_NAMESPACE

HYPERSTREAMS_CPU_ENTRY(coefficients_forward, CoefficientsArgs)
HYPERSTREAMS_CPU_ENTRY(coefficients_backward, CoefficientsBackwardArgs)

}  // namespace hyperstreams::cpu
