// coefficients on the CPU: a tile of tokens in lanes passes the activation stage and the map.
#include "hyperstreams/coefficients.h"

#include "coefficient_adjoint.h"

namespace hyperstreams::cpu {
namespace HYPERSTREAMS_ISA_NAMESPACE {
namespace {

template <class T>
void forward(const CoefficientsArgs& args, ParallelFor parallel_for) {
  constexpr int64_t lanes = Lanes<T>::size;
  const CoefficientPlan<T> plan(args.settings, args.alpha, args.bias);
  const int64_t tiles = (args.tokens + lanes - 1) / lanes;
  parallel(parallel_for, tiles, 4, [&](int64_t begin, int64_t end) {
    CoefficientTile<T> tile(plan);
    coefficients_tokens(args, tile, begin * lanes,
                        end * lanes < args.tokens ? end * lanes : args.tokens);
  });
}

/// Tiles whose parameter gradients are added in lanes before they become double.
constexpr int64_t kFlushInterval = 8;

template <class T>
void backward(const CoefficientsBackwardArgs& args, ParallelFor parallel_for) {
  constexpr int64_t step = kFlushInterval * Lanes<T>::size;
  const CoefficientPlan<T> plan(args.settings, args.alpha, args.bias);
  const int64_t parts = token_partitions(args.tokens);
  const int sums = plan.groups + plan.logits;
  parallel(parallel_for, parts, 1, [&](int64_t begin, int64_t end) {
    CoefficientAdjointTile<T> tile(plan);
    for (int64_t part = begin; part < end; ++part) {
      double* partial = args.partials + part * sums;
      for (int k = 0; k < sums; ++k) partial[k] = 0;
      const int64_t last = partition_begin(args.tokens, parts, part + 1);
      for (int64_t t = partition_begin(args.tokens, parts, part); t < last; t += step) {
        coefficients_adjoint_tokens(args, tile, t, last - t < step ? last : t + step);
        tile.flush(partial);
      }
    }
  });
  coefficients_adjoint_finish(args, plan, parts);
}

}  // namespace

template <class T>
void coefficients_tokens(const CoefficientsArgs& args, CoefficientTile<T>& tile, int64_t begin,
                         int64_t end) {
  constexpr int64_t lanes = Lanes<T>::size;
  const CoefficientPlan<T>& plan = tile.plan;
  const int n = plan.n;
  for (int64_t t = begin; t < end; t += lanes) {
    const int64_t count = end - t < lanes ? end - t : lanes;
    tile.load(args.logits, args.inv_rms, t, count);
    store_tile(tile.values.data(), count, n, static_cast<T*>(args.h_pre) + t * n);
    store_tile(tile.values.data() + n, count, n, static_cast<T*>(args.h_post) + t * n);
    const Lanes<T>* h_res = tile.values.data() + 2 * n;
    if (plan.map.forward) {
      plan.map.forward(*plan.map_settings, n, h_res, tile.h_res.data(), tile.scratch.data());
      h_res = tile.h_res.data();
    } else if (!plan.map.copies) {
      continue;
    }
    store_tile(h_res, count, n * n, static_cast<T*>(args.h_res) + t * n * n);
  }
}

template <class T>
void coefficients_adjoint_tokens(const CoefficientsBackwardArgs& args,
                                 CoefficientAdjointTile<T>& tile, int64_t begin, int64_t end) {
  constexpr int64_t lanes = Lanes<T>::size;
  const CoefficientPlan<T>& plan = tile.plan;
  const int n = plan.n;
  for (int64_t t = begin; t < end; t += lanes) {
    const int64_t count = end - t < lanes ? end - t : lanes;
    tile.load(args, t, count);
    load_rows(args.grad_h_pre, t, count, n, tile.grad.data());
    load_rows(args.grad_h_post, t, count, n, tile.grad.data() + n);
    if (plan.map.copies) load_rows(args.grad_h_res, t, count, n * n, tile.grad.data() + 2 * n);
    if (plan.map.backward) {
      load_rows(args.grad_h_res, t, count, n * n, tile.grad_h_res.data());
      plan.map.backward(*plan.map_settings, n, tile.values.data() + 2 * n, tile.grad_h_res.data(),
                        tile.grad.data() + 2 * n, tile.scratch.data());
    }
    tile.activation_adjoint();
    store_tile(tile.grad_logits.data(), count, plan.logits,
               static_cast<T*>(args.grad_logits) + t * plan.logits);
    if (args.grad_inv_rms) {
      store_tile(tile.grad_inv_rms.data(), count, plan.rms,
                 static_cast<T*>(args.grad_inv_rms) + t * plan.rms);
    }
  }
}

template <class T>
void coefficients_adjoint_finish(const CoefficientsBackwardArgs& args,
                                 const CoefficientPlan<T>& plan, int64_t parts) {
  const int sums = plan.groups + plan.logits;
  for (int k = 0; k < sums; ++k) {
    double sum = 0;
    for (int64_t part = 0; part < parts; ++part) sum += args.partials[part * sums + k];
    T* out = static_cast<T*>(k < plan.groups ? args.grad_alpha : args.grad_bias);
    out[k < plan.groups ? k : k - plan.groups] = static_cast<T>(sum);
  }
}

void coefficients_forward(const CoefficientsArgs& args, ParallelFor parallel_for) {
  if (args.dtype == DType::kFloat64) return forward<double>(args, parallel_for);
  forward<float>(args, parallel_for);
}

void coefficients_backward(const CoefficientsBackwardArgs& args, ParallelFor parallel_for) {
  if (args.dtype == DType::kFloat64) return backward<double>(args, parallel_for);
  backward<float>(args, parallel_for);
}

#define HYPERSTREAMS_INSTANTIATE_COEFFICIENTS(T)                                              \
  template void coefficients_tokens<T>(const CoefficientsArgs&, CoefficientTile<T>&, int64_t, \
                                       int64_t);                                              \
  template void coefficients_adjoint_tokens<T>(const CoefficientsBackwardArgs&,               \
                                               CoefficientAdjointTile<T>&, int64_t, int64_t); \
  template void coefficients_adjoint_finish<T>(const CoefficientsBackwardArgs&,               \
                                               const CoefficientPlan<T>&, int64_t);

HYPERSTREAMS_INSTANTIATE_COEFFICIENTS(float)
HYPERSTREAMS_INSTANTIATE_COEFFICIENTS(double)

}  // namespace HYPERSTREAMS_ISA_NAMESPACE

HYPERSTREAMS_CPU_ENTRY(coefficients_forward, CoefficientsArgs)
HYPERSTREAMS_CPU_ENTRY(coefficients_backward, CoefficientsBackwardArgs)

}  // namespace hyperstreams::cpu
