// mix_write on the CPU, backward.
//
// One thread owns whole tokens. grad_x, grad_y and the n * n + n dot products are made in one pass
// over the channels: for n <= 4 the lanes of the dot products stay in AVX-512 registers, above in
// L1. y and grad_y pass through rows in the accumulate dtype, so that the kernel depends on X's
// dtype alone.
#include "hyperstreams/mix_write.h"

#include "mix_write_rows.h"
#include "token_ranges.h"

namespace hyperstreams::cpu {
namespace HYPERSTREAMS_ISA_NAMESPACE {
namespace {

/// What backward reads and writes beside the streams, for one token.
template <class T>
struct BackwardRows {
  const T* y;  // y + bias
  T* grad_y;   // before rounding
  T *grad_h_res, *grad_h_post;
};

/// S: element type of x and grad_x. G: that of grad_out.
template <class S, class G>
struct MixBackwardToken : BackwardRows<accumulate_t<S>> {
  using acc_t = accumulate_t<S>;
  int n;
  int64_t width, x_stride, grad_stride;
  const S* x;
  const G* grad_out;
  const acc_t *h_res, *h_post;
  S* grad_x;

  MixBackwardToken(const MixWriteBackwardArgs& args, int64_t t, const BackwardRows<acc_t>& rows)
      : BackwardRows<acc_t>(rows),
        n(args.n_streams),
        width(args.width),
        x_stride(args.x.stream_stride),
        grad_stride(args.grad_out.stream_stride),
        x(static_cast<const S*>(args.x.data) + t * args.x.token_stride),
        grad_out(static_cast<const G*>(args.grad_out.data) + t * args.grad_out.token_stride),
        h_res(static_cast<const acc_t*>(args.h_res.data) + t * args.h_res.token_stride),
        h_post(static_cast<const acc_t*>(args.h_post.data) + t * args.h_post.token_stride),
        grad_x(static_cast<S*>(args.grad_x) + t * n * width) {}
};

/// Dot products over channels in lanes, and the adjoint of one lane group.
template <class T, int kN>
struct MixDots {
  static constexpr int kMax = kN ? kN : kMaxStreams;
  Lanes<T> res[kMax * kMax], post[kMax];

  explicit HYPERSTREAMS_INLINE MixDots(int n) {
    for (int k = 0; k < n * n; ++k) res[k] = Lanes<T>::set(0);
    for (int j = 0; j < n; ++j) post[j] = Lanes<T>::set(0);
  }

  template <class S, class G, class Load, class Store>
  HYPERSTREAMS_INLINE void group(const MixBackwardToken<S, G>& token, const Load& load,
                                 const Store& store) {
    using lanes_t = Lanes<T>;
    const int n = kN ? kN : token.n;
    lanes_t source[kMax], grad_source[kMax], grad_branch = lanes_t::set(0);
    const lanes_t branch = load(token.y);
    for (int i = 0; i < n; ++i) source[i] = load(token.x + i * token.x_stride);
    for (int i = 0; i < n; ++i) grad_source[i] = lanes_t::set(0);
    for (int j = 0; j < n; ++j) {
      const lanes_t g = load(token.grad_out + j * token.grad_stride);
      grad_branch = fma(lanes_t::set(token.h_post[j]), g, grad_branch);
      post[j] = fma(g, branch, post[j]);
      for (int i = 0; i < n; ++i) {
        grad_source[i] = fma(lanes_t::set(token.h_res[j * n + i]), g, grad_source[i]);
        res[j * n + i] = fma(g, source[i], res[j * n + i]);
      }
    }
    store(token.grad_y, grad_branch);
    for (int i = 0; i < n; ++i) store(token.grad_x + i * token.width, grad_source[i]);
  }
};

/// The last, incomplete lane group, and the sums of the lanes; compiled once for all n.
template <class S, class G>
__attribute__((noinline)) void mix_backward_finish(const MixBackwardToken<S, G>& token,
                                                   MixDots<accumulate_t<S>, 0>& dots, int64_t c) {
  using lanes_t = Lanes<accumulate_t<S>>;
  const int64_t count = token.width - c;
  if (count > 0) {
    dots.group(
        token, [&](const auto* row) { return load_partial(row + c, count); },
        [&](auto* row, const lanes_t& value) { store_partial(row + c, value, count); });
  }
  for (int k = 0; k < token.n * token.n; ++k) token.grad_h_res[k] = dots.res[k].sum();
  for (int j = 0; j < token.n; ++j) token.grad_h_post[j] = dots.post[j].sum();
}

template <class S, class G, int kN>
void mix_backward_token(const MixWriteBackwardArgs& args, int64_t t,
                        const BackwardRows<accumulate_t<S>>& rows) {
  using acc_t = accumulate_t<S>;
  using lanes_t = Lanes<acc_t>;
  const MixBackwardToken<S, G> token(args, t, rows);
  const int n = kN ? kN : token.n;
  MixDots<acc_t, kN> dots(n);
  int64_t c = 0;
  for (; c + lanes_t::size <= token.width; c += lanes_t::size) {
    prefetch_channels(token.x + args.x.token_stride, token.x_stride, n, c);
    prefetch_channels(token.grad_out + args.grad_out.token_stride, token.grad_stride, n, c);
    prefetch_channels(token.grad_x + n * token.width, token.width, n, c);
    dots.group(
        token, [&](const auto* row) { return lanes_t::load(row + c); },
        [&](auto* row, const lanes_t& value) { value.store(row + c); });
  }
  if constexpr (kN == 0) {
    mix_backward_finish(token, dots, c);
  } else {
    // A copy, so that `dots` itself can live in registers.
    MixDots<acc_t, 0> all(0);
    for (int k = 0; k < n * n; ++k) all.res[k] = dots.res[k];
    for (int j = 0; j < n; ++j) all.post[j] = dots.post[j];
    mix_backward_finish(token, all, c);
  }
}

/// The same without h_res.
template <class S, class G>
void write_backward_token(const MixWriteBackwardArgs& args, int64_t t,
                          const BackwardRows<accumulate_t<S>>& rows) {
  using acc_t = accumulate_t<S>;
  using lanes_t = Lanes<acc_t>;
  const MixBackwardToken<S, G> token(args, t, rows);
  lanes_t post_dot[kMaxStreams];
  for (int j = 0; j < token.n; ++j) post_dot[j] = lanes_t::set(0);
  const auto group = [&](const auto& load, const auto& store) {
    lanes_t grad_branch = lanes_t::set(0);
    const lanes_t branch = load(token.y);
    for (int j = 0; j < token.n; ++j) {
      const lanes_t g = load(token.grad_out + j * token.grad_stride);
      grad_branch = fma(lanes_t::set(token.h_post[j]), g, grad_branch);
      post_dot[j] = fma(g, branch, post_dot[j]);
      store(token.grad_x + j * token.width, g);
    }
    store(token.grad_y, grad_branch);
  };
  for_channels<acc_t>(
      token.width,
      [&](int64_t c) {
        group([&](const auto* row) { return lanes_t::load(row + c); },
              [&](auto* row, const lanes_t& value) { value.store(row + c); });
      },
      [&](int64_t c, int64_t count) {
        group([&](const auto* row) { return load_partial(row + c, count); },
              [&](auto* row, const lanes_t& value) { store_partial(row + c, value, count); });
      });
  for (int j = 0; j < token.n; ++j) token.grad_h_post[j] = post_dot[j].sum();
}

template <class T>
using BackwardToken = void (*)(const MixWriteBackwardArgs&, int64_t t, const BackwardRows<T>&);

/// Where the sums over the tokens of one partition go; null where there is nothing to sum.
template <class T>
struct PartitionSums {
  double *h_res, *h_post;
  T* bias;
};

template <class T>
void backward_tokens(const MixWriteBackwardArgs& args, BackwardToken<T> kernel, int64_t begin,
                     int64_t end, const PartitionSums<T>& sums) {
  const int n = args.n_streams;
  const bool direct = is_stored_as<T>(args.y_dtype);
  BranchRows<T, MixWriteBackwardArgs> branch(args);
  Scratch<T> grad_row(direct ? 0 : args.width);
  T res_sum[kMaxStreams * kMaxStreams], post_sum[kMaxStreams];
  for (int64_t t = begin; t < end; ++t) {
    BackwardRows<T> rows{branch.row(t), grad_row.data(), res_sum, post_sum};
    if (direct) rows.grad_y = static_cast<T*>(args.grad_y) + t * args.width;
    if (args.h_res.data && !sums.h_res) {
      rows.grad_h_res = static_cast<T*>(args.grad_h_res) + t * n * n;
    }
    if (!sums.h_post) rows.grad_h_post = static_cast<T*>(args.grad_h_post) + t * n;
    kernel(args, t, rows);
    if (sums.h_res) add_row(res_sum, n * n, sums.h_res);
    if (sums.h_post) add_row(post_sum, n, sums.h_post);
    if (sums.bias) add_row(rows.grad_y, args.width, sums.bias);
    if (!direct) store_row(args.y_dtype, rows.grad_y, args.width, args.grad_y, t * args.width);
  }
}

/// The kernel of one token for the streams' and grad_out's element types.
template <class S, class G>
BackwardToken<accumulate_t<S>> find_kernel(const MixWriteBackwardArgs& args) {
  BackwardToken<accumulate_t<S>> kernel = write_backward_token<S, G>;
  if (args.h_res.data) {
    dispatch_streams<S>(args.n_streams, [&](auto streams) {
      kernel = mix_backward_token<S, G, decltype(streams)::value>;
    });
  }
  return kernel;
}

}  // namespace

void mix_write_backward_tokens(const MixWriteBackwardArgs& args, bool accumulated, int64_t begin,
                               int64_t end, const MixWriteSums& sums) {
  dispatch_dtype(args.dtype, [&](auto dtype) {
    using scalar_t = typename decltype(dtype)::type;
    using acc_t = accumulate_t<scalar_t>;
    const auto kernel =
        accumulated ? find_kernel<scalar_t, acc_t>(args) : find_kernel<scalar_t, scalar_t>(args);
    backward_tokens<acc_t>(args, kernel, begin, end,
                           {sums.h_res, sums.h_post, static_cast<acc_t*>(sums.bias)});
  });
}

MixWriteSums mix_write_clear_sums(const MixWriteBackwardArgs& args, int64_t part) {
  const int n = args.n_streams;
  MixWriteSums sums = {nullptr, nullptr, nullptr};
  double* partial = args.partials + part * (n * n + n);
  if (args.h_res.data && args.h_res.token_stride == 0) sums.h_res = partial;
  if (args.h_post.token_stride == 0) sums.h_post = partial + n * n;
  zero_row(n * n + n, partial);
  if (args.bias) {
    const int64_t size = args.width * (args.dtype == DType::kFloat64 ? 8 : 4);
    sums.bias = static_cast<char*>(args.bias_partials) + part * size;
    std::memset(sums.bias, 0, static_cast<size_t>(size));
  }
  return sums;
}

void mix_write_finish_sums(const MixWriteBackwardArgs& args, int64_t parts) {
  const int n = args.n_streams;
  const int64_t stride = n * n + n;
  dispatch_dtype(args.dtype, [&](auto dtype) {
    using T = accumulate_t<typename decltype(dtype)::type>;
    if (args.h_res.data && args.h_res.token_stride == 0) {
      sum_partials(args.partials, parts, stride, n * n, static_cast<T*>(args.grad_h_res));
    }
    if (args.h_post.token_stride == 0) {
      sum_partials(args.partials + n * n, parts, stride, n, static_cast<T*>(args.grad_h_post));
    }
    if (args.bias) {
      sum_partials(static_cast<const T*>(args.bias_partials), parts, args.width, args.width,
                   static_cast<T*>(args.grad_bias));
    }
  });
}

void mix_write_backward(const MixWriteBackwardArgs& args, ParallelFor parallel_for) {
  const bool sums_over_tokens = (args.h_res.data && args.h_res.token_stride == 0) ||
                                args.h_post.token_stride == 0 || args.bias;
  if (!sums_over_tokens) {
    const int64_t grain = token_grain((3 * args.n_streams + 2) * args.width * size_of(args.dtype));
    parallel(parallel_for, args.tokens, grain, [&](int64_t begin, int64_t end) {
      mix_write_backward_tokens(args, false, begin, end, {nullptr, nullptr, nullptr});
    });
    return;
  }
  const int64_t parts = row_partitions(args.tokens, args.width);
  parallel(parallel_for, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      mix_write_backward_tokens(args, false, partition_begin(args.tokens, parts, part),
                                partition_begin(args.tokens, parts, part + 1),
                                mix_write_clear_sums(args, part));
    }
  });
  mix_write_finish_sums(args, parts);
}

}  // namespace HYPERSTREAMS_ISA_NAMESPACE

HYPERSTREAMS_CPU_ENTRY(mix_write_backward, MixWriteBackwardArgs)

}  // namespace hyperstreams::cpu
