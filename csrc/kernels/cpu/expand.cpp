// expand on the CPU: X[i] = h scale[i] + bias[i], and its adjoint.
//
// One thread owns whole tokens. Backward reads grad_x once: it makes grad_h and adds to the rows of
// its partition's grad_scale and grad_bias, which stay in cache.
#include "hyperstreams/expand.h"

#include "rows.h"

namespace hyperstreams::cpu {
namespace HYPERSTREAMS_ISA_NAMESPACE {
namespace {

template <class S, bool kScale, bool kBias>
void forward_tokens(const ExpandArgs& args, int64_t begin, int64_t end) {
  using acc_t = accumulate_t<S>;
  using lanes_t = Lanes<acc_t>;
  const int64_t width = args.width;
  for (int64_t t = begin; t < end; ++t) {
    const S* h = static_cast<const S*>(args.h.data) + t * args.h.token_stride;
    for (int i = 0; i < args.n_streams; ++i) {
      const acc_t* scale = kScale ? static_cast<const acc_t*>(args.scale) + i * width : nullptr;
      const acc_t* bias = kBias ? static_cast<const acc_t*>(args.bias) + i * width : nullptr;
      S* x = static_cast<S*>(args.x) + (t * args.n_streams + i) * width;
      const auto combine = [&](const auto& load) {
        const lanes_t value = load(h);
        if constexpr (kScale && kBias) return fma(value, load(scale), load(bias));
        if constexpr (kScale) return value * load(scale);
        if constexpr (kBias) return value + load(bias);
        return value;
      };
      for_channels<acc_t>(
          width,
          [&](int64_t c) {
            combine([&](const auto* row) { return lanes_t::load(row + c); }).store(x + c);
          },
          [&](int64_t c, int64_t count) {
            store_partial(x + c,
                          combine([&](const auto* row) { return load_partial(row + c, count); }),
                          count);
          });
    }
  }
}

/// Adds to grad_scale and grad_bias [n, C].
template <class S, bool kScale, bool kBias>
void backward_tokens(const ExpandBackwardArgs& args, int64_t begin, int64_t end, void* scale_sums,
                     void* bias_sums) {
  using acc_t = accumulate_t<S>;
  using lanes_t = Lanes<acc_t>;
  const int64_t width = args.width;
  for (int64_t t = begin; t < end; ++t) {
    const S* h = static_cast<const S*>(args.h.data) + t * args.h.token_stride;
    const S* grad_x = static_cast<const S*>(args.grad_x.data) + t * args.grad_x.token_stride;
    S* grad_h = static_cast<S*>(args.grad_h) + t * width;
    const auto group = [&](const auto& load, const auto& store) {
      lanes_t value, sum = lanes_t::set(0);
      if constexpr (kScale) value = load(h);
      for (int i = 0; i < args.n_streams; ++i) {
        const lanes_t g = load(grad_x + i * args.grad_x.stream_stride);
        if constexpr (kScale) {
          acc_t* row = static_cast<acc_t*>(scale_sums) + i * width;
          sum = fma(load(static_cast<const acc_t*>(args.scale) + i * width), g, sum);
          store(row, fma(value, g, load(row)));
        } else {
          sum = sum + g;
        }
        if constexpr (kBias) {
          acc_t* row = static_cast<acc_t*>(bias_sums) + i * width;
          store(row, g + load(row));
        }
      }
      store(grad_h, sum);
    };
    for_channels<acc_t>(
        width,
        [&](int64_t c) {
          group([&](const auto* row) { return lanes_t::load(row + c); },
                [&](auto* row, const lanes_t& lanes) { lanes.store(row + c); });
        },
        [&](int64_t c, int64_t count) {
          group([&](const auto* row) { return load_partial(row + c, count); },
                [&](auto* row, const lanes_t& lanes) { store_partial(row + c, lanes, count); });
        });
  }
}

using BackwardTokens = void (*)(const ExpandBackwardArgs&, int64_t begin, int64_t end,
                                void* scale_sums, void* bias_sums);

template <class T>
void backward(const ExpandBackwardArgs& args, BackwardTokens kernel, int64_t grain,
              ParallelFor parallel_for) {
  if (!args.grad_scale && !args.grad_bias) {
    parallel(parallel_for, args.tokens, grain,
             [&](int64_t begin, int64_t end) { kernel(args, begin, end, nullptr, nullptr); });
    return;
  }
  const int64_t size = args.n_streams * args.width;
  const int64_t parts = row_partitions(args.tokens, size);
  T* partials = static_cast<T*>(args.partials);
  parallel(parallel_for, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      T* sums = partials + 2 * part * size;
      if (args.grad_scale) zero_row(size, sums);
      if (args.grad_bias) zero_row(size, sums + size);
      kernel(args, partition_begin(args.tokens, parts, part),
             partition_begin(args.tokens, parts, part + 1), sums, sums + size);
    }
  });
  if (args.grad_scale) {
    sum_partials(partials, parts, 2 * size, size, static_cast<T*>(args.grad_scale));
  }
  if (args.grad_bias) {
    sum_partials(partials + size, parts, 2 * size, size, static_cast<T*>(args.grad_bias));
  }
}

}  // namespace

void expand_forward(const ExpandArgs& args, ParallelFor parallel_for) {
  dispatch_dtype(args.dtype, [&](auto dtype) {
    using scalar_t = typename decltype(dtype)::type;
    const auto kernel = args.scale ? (args.bias ? forward_tokens<scalar_t, true, true>
                                                : forward_tokens<scalar_t, true, false>)
                                   : (args.bias ? forward_tokens<scalar_t, false, true>
                                                : forward_tokens<scalar_t, false, false>);
    const int64_t grain = token_grain((args.n_streams + 1) * args.width * sizeof(scalar_t));
    parallel(parallel_for, args.tokens, grain,
             [&](int64_t begin, int64_t end) { kernel(args, begin, end); });
  });
}

void expand_backward(const ExpandBackwardArgs& args, ParallelFor parallel_for) {
  dispatch_dtype(args.dtype, [&](auto dtype) {
    using scalar_t = typename decltype(dtype)::type;
    const auto kernel = args.grad_scale
                            ? (args.grad_bias ? backward_tokens<scalar_t, true, true>
                                              : backward_tokens<scalar_t, true, false>)
                            : (args.grad_bias ? backward_tokens<scalar_t, false, true>
                                              : backward_tokens<scalar_t, false, false>);
    const int64_t grain = token_grain((args.n_streams + 2) * args.width * sizeof(scalar_t));
    backward<accumulate_t<scalar_t>>(args, kernel, grain, parallel_for);
  });
}

}  // namespace HYPERSTREAMS_ISA_NAMESPACE

HYPERSTREAMS_CPU_ENTRY(expand_forward, ExpandArgs)
HYPERSTREAMS_CPU_ENTRY(expand_backward, ExpandBackwardArgs)

}  // namespace hyperstreams::cpu
