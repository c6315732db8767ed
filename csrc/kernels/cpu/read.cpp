// read on the CPU: u[t, c] = sum_i h_pre[t, i] X[t, i, c], and its adjoint.
//
// One thread owns whole tokens. Channels run in lanes; the n streams of a lane group are combined
// in registers, so X is read once. Traffic and determinism: see the contract.
#include "hyperstreams/read.h"

#include "simd.h"
#include "token_ranges.h"

namespace hyperstreams::cpu {
namespace HYPERSTREAMS_ISA_NAMESPACE {
namespace {

template <class S, int kN>
void forward_tokens(const ReadArgs& args, int64_t begin, int64_t end) {
  using acc_t = accumulate_t<S>;
  using lanes_t = Lanes<acc_t>;
  const int n = kN ? kN : args.n_streams;
  for (int64_t t = begin; t < end; ++t) {
    const S* x = static_cast<const S*>(args.x.data) + t * args.x.token_stride;
    const acc_t* h = static_cast<const acc_t*>(args.h_pre.data) + t * args.h_pre.token_stride;
    S* u = static_cast<S*>(args.u) + t * args.width;
    lanes_t weight[kN ? kN : kMaxStreams];
    for (int i = 0; i < n; ++i) weight[i] = lanes_t::set(h[i]);
    const auto combine = [&](const auto& load) {
      lanes_t sum = weight[0] * load(x);
      for (int i = 1; i < n; ++i) sum = fma(weight[i], load(x + i * args.x.stream_stride), sum);
      return sum;
    };
    for_channels<acc_t>(
        args.width,
        [&](int64_t c) {
          combine([&](const S* row) { return lanes_t::load(row + c); }).store(u + c);
        },
        [&](int64_t c, int64_t count) {
          store_partial(u + c, combine([&](const S* row) { return load_partial(row + c, count); }),
                        count);
        });
  }
}

template <class S, int kN>
void backward_token(const ReadBackwardArgs& args, int64_t t, accumulate_t<S>* grad_h) {
  using acc_t = accumulate_t<S>;
  using lanes_t = Lanes<acc_t>;
  const int n = kN ? kN : args.n_streams;
  const S* x = static_cast<const S*>(args.x.data) + t * args.x.token_stride;
  const acc_t* h = static_cast<const acc_t*>(args.h_pre.data) + t * args.h_pre.token_stride;
  const S* grad_u = static_cast<const S*>(args.grad_u.data) + t * args.grad_u.token_stride;
  S* grad_x = static_cast<S*>(args.grad_x) + t * n * args.width;
  lanes_t dot[kN ? kN : kMaxStreams];
  for (int i = 0; i < n; ++i) dot[i] = lanes_t::set(0);
  for_channels<acc_t>(
      args.width,
      [&](int64_t c) {
        const lanes_t g = lanes_t::load(grad_u + c);
        for (int i = 0; i < n; ++i) {
          dot[i] = fma(g, lanes_t::load(x + i * args.x.stream_stride + c), dot[i]);
          (lanes_t::set(h[i]) * g).store(grad_x + i * args.width + c);
        }
      },
      [&](int64_t c, int64_t count) {
        const lanes_t g = load_partial(grad_u + c, count);
        for (int i = 0; i < n; ++i) {
          dot[i] = fma(g, load_partial(x + i * args.x.stream_stride + c, count), dot[i]);
          store_partial(grad_x + i * args.width + c, lanes_t::set(h[i]) * g, count);
        }
      });
  for (int i = 0; i < n; ++i) grad_h[i] = dot[i].sum();
}

template <class S, int kN>
void backward_dynamic(const ReadBackwardArgs& args, ParallelFor parallel_for) {
  using acc_t = accumulate_t<S>;
  const int n = kN ? kN : args.n_streams;
  const int64_t grain = token_grain((2 * n + 1) * args.width * sizeof(S));
  parallel(parallel_for, args.tokens, grain, [&](int64_t begin, int64_t end) {
    acc_t* grad_h = static_cast<acc_t*>(args.grad_h_pre);
    for (int64_t t = begin; t < end; ++t) backward_token<S, kN>(args, t, grad_h + t * n);
  });
}

template <class S, int kN>
void backward_static(const ReadBackwardArgs& args, ParallelFor parallel_for) {
  using acc_t = accumulate_t<S>;
  const int n = kN ? kN : args.n_streams;
  const int64_t parts = token_partitions(args.tokens);
  parallel(parallel_for, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      double sum[kMaxStreams] = {};
      acc_t grad_h[kMaxStreams];
      const int64_t last = partition_begin(args.tokens, parts, part + 1);
      for (int64_t t = partition_begin(args.tokens, parts, part); t < last; ++t) {
        backward_token<S, kN>(args, t, grad_h);
        for (int i = 0; i < n; ++i) sum[i] += grad_h[i];
      }
      for (int i = 0; i < n; ++i) args.partials[part * n + i] = sum[i];
    }
  });
  for (int i = 0; i < n; ++i) {
    double sum = 0;
    for (int64_t part = 0; part < parts; ++part) sum += args.partials[part * n + i];
    static_cast<acc_t*>(args.grad_h_pre)[i] = static_cast<acc_t>(sum);
  }
}

}  // namespace

void read_tokens(const ReadArgs& args, int64_t begin, int64_t end) {
  dispatch_dtype(args.dtype, [&](auto dtype) {
    using scalar_t = typename decltype(dtype)::type;
    dispatch_streams<scalar_t>(args.n_streams, [&](auto streams) {
      forward_tokens<scalar_t, decltype(streams)::value>(args, begin, end);
    });
  });
}

void read_forward(const ReadArgs& args, ParallelFor parallel_for) {
  const int64_t grain = token_grain((args.n_streams + 1) * args.width * size_of(args.dtype));
  parallel(parallel_for, args.tokens, grain,
           [&](int64_t begin, int64_t end) { read_tokens(args, begin, end); });
}

void read_backward(const ReadBackwardArgs& args, ParallelFor parallel_for) {
  dispatch_dtype(args.dtype, [&](auto dtype) {
    using scalar_t = typename decltype(dtype)::type;
    dispatch_streams<scalar_t>(args.n_streams, [&](auto streams) {
      constexpr int kN = decltype(streams)::value;
      if (args.h_pre.token_stride == 0) {
        backward_static<scalar_t, kN>(args, parallel_for);
      } else {
        backward_dynamic<scalar_t, kN>(args, parallel_for);
      }
    });
  });
}

}  // namespace HYPERSTREAMS_ISA_NAMESPACE

HYPERSTREAMS_CPU_ENTRY(read_forward, ReadArgs)
HYPERSTREAMS_CPU_ENTRY(read_backward, ReadBackwardArgs)

}  // namespace hyperstreams::cpu
