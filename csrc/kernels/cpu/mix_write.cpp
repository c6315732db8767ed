// mix_write on the CPU: X'[j] = sum_i h_res[j, i] X[i] + h_post[j] (y + bias), and its adjoint.
//
// One thread owns whole tokens. Channels run in lanes; the streams of a lane group are loaded once
// and all n destinations are made from them, so X is read once. Backward makes grad_x, grad_y and
// the n * n + n dot products in the same pass: for n <= 4 their lanes stay in AVX-512 registers,
// above in L1. y and grad_y pass through a row in the accumulate dtype, so that kernels depend on
// X's dtype alone.
#include "hyperstreams/mix_write.h"

#include "rows.h"

namespace hyperstreams::cpu {
namespace HYPERSTREAMS_ISA_NAMESPACE {
namespace {

/// Coefficients as lanes: broadcast once per token where they fit in registers, else when used.
template <class T, int kCount>
struct Broadcast {
  Lanes<T> lanes[kCount];
  explicit HYPERSTREAMS_INLINE Broadcast(const T* values) {
    for (int k = 0; k < kCount; ++k) lanes[k] = Lanes<T>::set(values[k]);
  }
  HYPERSTREAMS_INLINE Lanes<T> operator()(int k) const { return lanes[k]; }
};

template <class T>
struct Broadcast<T, 0> {
  const T* values;
  explicit HYPERSTREAMS_INLINE Broadcast(const T* data) : values(data) {}
  HYPERSTREAMS_INLINE Lanes<T> operator()(int k) const { return Lanes<T>::set(values[k]); }
};

/// The rows y + bias of one task in the accumulate dtype.
template <class T, class Args>
class BranchRows {
 public:
  explicit BranchRows(const Args& args)
      : args_(args),
        direct_(is_stored_as<T>(args.y_dtype) && !args.bias),
        row_(direct_ ? 0 : args.width) {}

  const T* row(int64_t t) {
    const int64_t offset = t * args_.y.token_stride;
    if (direct_) return static_cast<const T*>(args_.y.data) + offset;
    load_row(args_.y_dtype, args_.y.data, offset, args_.width, row_.data());
    if (args_.bias) add_row(static_cast<const T*>(args_.bias), args_.width, row_.data());
    return row_.data();
  }

 private:
  const Args& args_;
  bool direct_;
  Scratch<T> row_;
};

template <class S, int kN>
void mix_token(const MixWriteArgs& args, int64_t t, const accumulate_t<S>* y) {
  using acc_t = accumulate_t<S>;
  using lanes_t = Lanes<acc_t>;
  constexpr bool in_registers = kN >= 1 && kN <= 4;
  const int n = kN ? kN : args.n_streams;
  const int64_t stride = args.x.stream_stride;
  const S* x = static_cast<const S*>(args.x.data) + t * args.x.token_stride;
  S* out = static_cast<S*>(args.x_out) + t * n * args.width;
  const Broadcast<acc_t, in_registers ? kN * kN : 0> h_res(
      static_cast<const acc_t*>(args.h_res.data) + t * args.h_res.token_stride);
  const Broadcast<acc_t, in_registers ? kN : 0> h_post(static_cast<const acc_t*>(args.h_post.data) +
                                                       t * args.h_post.token_stride);
  const auto group = [&](const auto& load, const auto& store) {
    lanes_t source[kN ? kN : kMaxStreams];
    for (int i = 0; i < n; ++i) source[i] = load(x + i * stride);
    const lanes_t branch = load(y);
    for (int j = 0; j < n; ++j) {
      lanes_t sum = h_res(j * n) * source[0];
      for (int i = 1; i < n; ++i) sum = fma(h_res(j * n + i), source[i], sum);
      store(out + j * args.width, fma(h_post(j), branch, sum));
    }
  };
  for_channels<acc_t>(
      args.width,
      [&](int64_t c) {
        group([&](const auto* row) { return lanes_t::load(row + c); },
              [&](S* row, const lanes_t& value) { value.store(row + c); });
      },
      [&](int64_t c, int64_t count) {
        group([&](const auto* row) { return load_partial(row + c, count); },
              [&](S* row, const lanes_t& value) { store_partial(row + c, value, count); });
      });
}

/// X'[j] = X[j] + h_post[j] (y + bias).
template <class S>
void write_token(const MixWriteArgs& args, int64_t t, const accumulate_t<S>* y) {
  using acc_t = accumulate_t<S>;
  using lanes_t = Lanes<acc_t>;
  const S* x = static_cast<const S*>(args.x.data) + t * args.x.token_stride;
  const acc_t* h_post = static_cast<const acc_t*>(args.h_post.data) + t * args.h_post.token_stride;
  S* out = static_cast<S*>(args.x_out) + t * args.n_streams * args.width;
  for (int j = 0; j < args.n_streams; ++j, x += args.x.stream_stride, out += args.width) {
    const lanes_t weight = lanes_t::set(h_post[j]);
    for_channels<acc_t>(
        args.width,
        [&](int64_t c) { fma(weight, lanes_t::load(y + c), lanes_t::load(x + c)).store(out + c); },
        [&](int64_t c, int64_t count) {
          store_partial(out + c,
                        fma(weight, load_partial(y + c, count), load_partial(x + c, count)), count);
        });
  }
}

/// Writes grad_x of token t, the unrounded grad_y row, and the token's dot products.
template <class S, int kN>
void mix_backward_token(const MixWriteBackwardArgs& args, int64_t t, const accumulate_t<S>* y,
                        accumulate_t<S>* grad_y, accumulate_t<S>* grad_h_res,
                        accumulate_t<S>* grad_h_post) {
  using acc_t = accumulate_t<S>;
  using lanes_t = Lanes<acc_t>;
  constexpr int kMax = kN ? kN : kMaxStreams;
  const int n = kN ? kN : args.n_streams;
  const int64_t stride = args.x.stream_stride, grad_stride = args.grad_out.stream_stride;
  const S* x = static_cast<const S*>(args.x.data) + t * args.x.token_stride;
  const S* grad_out = static_cast<const S*>(args.grad_out.data) + t * args.grad_out.token_stride;
  const acc_t* h_res = static_cast<const acc_t*>(args.h_res.data) + t * args.h_res.token_stride;
  const acc_t* h_post = static_cast<const acc_t*>(args.h_post.data) + t * args.h_post.token_stride;
  S* grad_x = static_cast<S*>(args.grad_x) + t * n * args.width;
  lanes_t res_dot[kMax * kMax], post_dot[kMax];
  for (int k = 0; k < n * n; ++k) res_dot[k] = lanes_t::set(0);
  for (int j = 0; j < n; ++j) post_dot[j] = lanes_t::set(0);
  const auto group = [&](const auto& load, const auto& store) {
    lanes_t source[kMax], grad_source[kMax], grad_branch = lanes_t::set(0);
    const lanes_t branch = load(y);
    for (int i = 0; i < n; ++i) source[i] = load(x + i * stride);
    for (int i = 0; i < n; ++i) grad_source[i] = lanes_t::set(0);
    for (int j = 0; j < n; ++j) {
      const lanes_t g = load(grad_out + j * grad_stride);
      grad_branch = fma(lanes_t::set(h_post[j]), g, grad_branch);
      post_dot[j] = fma(g, branch, post_dot[j]);
      for (int i = 0; i < n; ++i) {
        grad_source[i] = fma(lanes_t::set(h_res[j * n + i]), g, grad_source[i]);
        res_dot[j * n + i] = fma(g, source[i], res_dot[j * n + i]);
      }
    }
    store(grad_y, grad_branch);
    for (int i = 0; i < n; ++i) store(grad_x + i * args.width, grad_source[i]);
  };
  for_channels<acc_t>(
      args.width,
      [&](int64_t c) {
        group([&](const auto* row) { return lanes_t::load(row + c); },
              [&](auto* row, const lanes_t& value) { value.store(row + c); });
      },
      [&](int64_t c, int64_t count) {
        group([&](const auto* row) { return load_partial(row + c, count); },
              [&](auto* row, const lanes_t& value) { store_partial(row + c, value, count); });
      });
  for (int k = 0; k < n * n; ++k) grad_h_res[k] = res_dot[k].sum();
  for (int j = 0; j < n; ++j) grad_h_post[j] = post_dot[j].sum();
}

/// The same without h_res.
template <class S>
void write_backward_token(const MixWriteBackwardArgs& args, int64_t t, const accumulate_t<S>* y,
                          accumulate_t<S>* grad_y, accumulate_t<S>* grad_h_post) {
  using acc_t = accumulate_t<S>;
  using lanes_t = Lanes<acc_t>;
  const int n = args.n_streams;
  const S* grad_out = static_cast<const S*>(args.grad_out.data) + t * args.grad_out.token_stride;
  const acc_t* h_post = static_cast<const acc_t*>(args.h_post.data) + t * args.h_post.token_stride;
  S* grad_x = static_cast<S*>(args.grad_x) + t * n * args.width;
  lanes_t post_dot[kMaxStreams];
  for (int j = 0; j < n; ++j) post_dot[j] = lanes_t::set(0);
  const auto group = [&](const auto& load, const auto& store) {
    lanes_t grad_branch = lanes_t::set(0);
    const lanes_t branch = load(y);
    for (int j = 0; j < n; ++j) {
      const lanes_t g = load(grad_out + j * args.grad_out.stream_stride);
      grad_branch = fma(lanes_t::set(h_post[j]), g, grad_branch);
      post_dot[j] = fma(g, branch, post_dot[j]);
      store(grad_x + j * args.width, g);
    }
    store(grad_y, grad_branch);
  };
  for_channels<acc_t>(
      args.width,
      [&](int64_t c) {
        group([&](const auto* row) { return lanes_t::load(row + c); },
              [&](auto* row, const lanes_t& value) { value.store(row + c); });
      },
      [&](int64_t c, int64_t count) {
        group([&](const auto* row) { return load_partial(row + c, count); },
              [&](auto* row, const lanes_t& value) { store_partial(row + c, value, count); });
      });
  for (int j = 0; j < n; ++j) grad_h_post[j] = post_dot[j].sum();
}

/// Where the sums over the tokens of one partition go; null where there is nothing to sum.
template <class T>
struct PartitionSums {
  double* h_res;
  double* h_post;
  T* bias;
};

template <class S, int kN>
void backward_tokens(const MixWriteBackwardArgs& args, int64_t begin, int64_t end,
                     const PartitionSums<accumulate_t<S>>& sums) {
  using acc_t = accumulate_t<S>;
  const int n = kN ? kN : args.n_streams;
  const bool has_mix = args.h_res.data != nullptr;
  const bool direct = is_stored_as<acc_t>(args.y_dtype);
  BranchRows<acc_t, MixWriteBackwardArgs> branch(args);
  Scratch<acc_t> grad_row(direct ? 0 : args.width);
  acc_t res_sum[kMaxStreams * kMaxStreams], post_sum[kMaxStreams];
  for (int64_t t = begin; t < end; ++t) {
    acc_t* grad_y = direct ? static_cast<acc_t*>(args.grad_y) + t * args.width : grad_row.data();
    acc_t* grad_h_post = sums.h_post ? post_sum : static_cast<acc_t*>(args.grad_h_post) + t * n;
    if (has_mix) {
      acc_t* grad_h_res = sums.h_res ? res_sum : static_cast<acc_t*>(args.grad_h_res) + t * n * n;
      mix_backward_token<S, kN>(args, t, branch.row(t), grad_y, grad_h_res, grad_h_post);
      if (sums.h_res) add_row(res_sum, n * n, sums.h_res);
    } else {
      write_backward_token<S>(args, t, branch.row(t), grad_y, grad_h_post);
    }
    if (sums.h_post) add_row(post_sum, n, sums.h_post);
    if (sums.bias) add_row(grad_y, args.width, sums.bias);
    if (!direct) store_row(args.y_dtype, grad_y, args.width, args.grad_y, t * args.width);
  }
}

template <class S, int kN>
void backward(const MixWriteBackwardArgs& args, ParallelFor parallel_for) {
  using acc_t = accumulate_t<S>;
  const int n = kN ? kN : args.n_streams;
  const int64_t width = args.width;
  const bool sum_res = args.h_res.data && args.h_res.token_stride == 0;
  const bool sum_post = args.h_post.token_stride == 0;
  if (!sum_res && !sum_post && !args.bias) {
    const int64_t grain = token_grain((3 * n + 2) * width * sizeof(S));
    parallel(parallel_for, args.tokens, grain, [&](int64_t begin, int64_t end) {
      backward_tokens<S, kN>(args, begin, end, {nullptr, nullptr, nullptr});
    });
    return;
  }
  const int64_t parts = row_partitions(args.tokens, width);
  const int64_t stride = n * n + n;
  acc_t* bias_partials = static_cast<acc_t*>(args.bias_partials);
  parallel(parallel_for, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      double* partial = args.partials + part * stride;
      for (int64_t k = 0; k < stride; ++k) partial[k] = 0;
      acc_t* bias = args.bias ? bias_partials + part * width : nullptr;
      for (int64_t c = 0; bias && c < width; ++c) bias[c] = 0;
      backward_tokens<S, kN>(
          args, partition_begin(args.tokens, parts, part),
          partition_begin(args.tokens, parts, part + 1),
          {sum_res ? partial : nullptr, sum_post ? partial + n * n : nullptr, bias});
    }
  });
  if (sum_res) {
    sum_partials(args.partials, parts, stride, n * n, static_cast<acc_t*>(args.grad_h_res));
  }
  if (sum_post) {
    sum_partials(args.partials + n * n, parts, stride, n, static_cast<acc_t*>(args.grad_h_post));
  }
  if (args.bias) {
    sum_partials(bias_partials, parts, width, width, static_cast<acc_t*>(args.grad_bias));
  }
}

}  // namespace

void mix_write_forward(const MixWriteArgs& args, ParallelFor parallel_for) {
  dispatch_dtype(args.dtype, [&](auto dtype) {
    using scalar_t = typename decltype(dtype)::type;
    using acc_t = accumulate_t<scalar_t>;
    const int64_t grain = token_grain((2 * args.n_streams + 1) * args.width * sizeof(scalar_t));
    const auto run = [&](const auto& token) {
      parallel(parallel_for, args.tokens, grain, [&](int64_t begin, int64_t end) {
        BranchRows<acc_t, MixWriteArgs> branch(args);
        for (int64_t t = begin; t < end; ++t) token(args, t, branch.row(t));
      });
    };
    if (!args.h_res.data) return run(write_token<scalar_t>);
    dispatch_streams(args.n_streams,
                     [&](auto streams) { run(mix_token<scalar_t, decltype(streams)::value>); });
  });
}

void mix_write_backward(const MixWriteBackwardArgs& args, ParallelFor parallel_for) {
  dispatch_dtype(args.dtype, [&](auto dtype) {
    using scalar_t = typename decltype(dtype)::type;
    if (!args.h_res.data) return backward<scalar_t, 0>(args, parallel_for);
    dispatch_streams(args.n_streams, [&](auto streams) {
      backward<scalar_t, decltype(streams)::value>(args, parallel_for);
    });
  });
}

}  // namespace HYPERSTREAMS_ISA_NAMESPACE

HYPERSTREAMS_CPU_ENTRY(mix_write_forward, MixWriteArgs)
HYPERSTREAMS_CPU_ENTRY(mix_write_backward, MixWriteBackwardArgs)

}  // namespace hyperstreams::cpu
