// mix_write on the CPU, forward: X'[j] = sum_i h_res[j, i] X[i] + h_post[j] (y + bias).
//
// One thread owns whole tokens. Channels run in lanes; the streams of a lane group are loaded once
// and all n destinations are made from them, so X is read once. y passes through a row in the
// accumulate dtype, so that the kernel depends on X's dtype alone.
#include "hyperstreams/mix_write.h"

#include "mix_write_rows.h"
#include "token_ranges.h"

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

/// One token of forward.
template <class S>
struct MixToken {
  using acc_t = accumulate_t<S>;
  int n;
  int64_t width, stride;
  const S* x;
  const acc_t *y, *h_res, *h_post;
  S* out;

  MixToken(const MixWriteArgs& args, int64_t t, const acc_t* branch)
      : n(args.n_streams),
        width(args.width),
        stride(args.x.stream_stride),
        x(static_cast<const S*>(args.x.data) + t * args.x.token_stride),
        y(branch),
        h_res(static_cast<const acc_t*>(args.h_res.data) + t * args.h_res.token_stride),
        h_post(static_cast<const acc_t*>(args.h_post.data) + t * args.h_post.token_stride),
        out(static_cast<S*>(args.x_out) + t * n * width) {}
};

template <int kN, class S, class Res, class Post, class Load, class Store>
HYPERSTREAMS_INLINE void mix_group(const MixToken<S>& token, const Res& h_res, const Post& h_post,
                                   const Load& load, const Store& store) {
  using lanes_t = Lanes<accumulate_t<S>>;
  const int n = kN ? kN : token.n;
  lanes_t source[kN ? kN : kMaxStreams];
  for (int i = 0; i < n; ++i) source[i] = load(token.x + i * token.stride);
  const lanes_t branch = load(token.y);
  for (int j = 0; j < n; ++j) {
    lanes_t sum = h_res(j * n) * source[0];
    for (int i = 1; i < n; ++i) sum = fma(h_res(j * n + i), source[i], sum);
    store(token.out + j * token.width, fma(h_post(j), branch, sum));
  }
}

/// The last, incomplete lane group; compiled once for all n.
template <class S>
__attribute__((noinline)) void mix_tail(const MixToken<S>& token, int64_t c) {
  using acc_t = accumulate_t<S>;
  const int64_t count = token.width - c;
  mix_group<0>(
      token, Broadcast<acc_t, 0>(token.h_res), Broadcast<acc_t, 0>(token.h_post),
      [&](const auto* row) { return load_partial(row + c, count); },
      [&](S* row, const Lanes<acc_t>& value) { store_partial(row + c, value, count); });
}

template <class S, int kN>
void mix_token(const MixWriteArgs& args, int64_t t, const accumulate_t<S>* y) {
  using acc_t = accumulate_t<S>;
  using lanes_t = Lanes<acc_t>;
  constexpr int kRegisters = kN <= 4 ? kN : 0;
  const MixToken<S> token(args, t, y);
  const Broadcast<acc_t, kRegisters * kRegisters> h_res(token.h_res);
  const Broadcast<acc_t, kRegisters> h_post(token.h_post);
  int64_t c = 0;
  const int n = kN ? kN : token.n;
  for (; c + lanes_t::size <= token.width; c += lanes_t::size) {
    prefetch_channels(token.x + args.x.token_stride, token.stride, n, c);
    prefetch_channels(token.out + n * token.width, token.width, n, c);
    mix_group<kN>(
        token, h_res, h_post, [&](const auto* row) { return lanes_t::load(row + c); },
        [&](S* row, const lanes_t& value) { value.store(row + c); });
  }
  if (c < token.width) mix_tail(token, c);
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

template <class T>
using ForwardToken = void (*)(const MixWriteArgs&, int64_t t, const T* y);

}  // namespace

void mix_write_tokens(const MixWriteArgs& args, int64_t begin, int64_t end) {
  dispatch_dtype(args.dtype, [&](auto dtype) {
    using scalar_t = typename decltype(dtype)::type;
    using acc_t = accumulate_t<scalar_t>;
    ForwardToken<acc_t> kernel = write_token<scalar_t>;
    if (args.h_res.data) {
      dispatch_streams<scalar_t>(args.n_streams, [&](auto streams) {
        kernel = mix_token<scalar_t, decltype(streams)::value>;
      });
    }
    BranchRows<acc_t, MixWriteArgs> branch(args);
    for (int64_t t = begin; t < end; ++t) kernel(args, t, branch.row(t));
  });
}

void mix_write_forward(const MixWriteArgs& args, ParallelFor parallel_for) {
  const int64_t grain = token_grain((2 * args.n_streams + 1) * args.width * size_of(args.dtype));
  parallel(parallel_for, args.tokens, grain,
           [&](int64_t begin, int64_t end) { mix_write_tokens(args, begin, end); });
}

}  // namespace HYPERSTREAMS_ISA_NAMESPACE

HYPERSTREAMS_CPU_ENTRY(mix_write_forward, MixWriteArgs)

}  // namespace hyperstreams::cpu
