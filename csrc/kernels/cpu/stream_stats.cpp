// stream_stats on the CPU: sums over tokens of Gram matrices, shares, entropies and angles.
//
// A task walks over the tokens of one partition. The rows of a token are converted to double once
// (padded with zeros to whole lanes), whatever the dtype, so that one kernel serves all; the token
// before stays at hand for the angles. The two tokens before a partition are visited for their rows
// alone.
#include "hyperstreams/stream_stats.h"

#include <cmath>

#include "rows.h"

namespace hyperstreams::cpu {
namespace HYPERSTREAMS_ISA_NAMESPACE {
namespace {

using lanes_t = Lanes<double>;
constexpr int kMaxRows = kMaxStreams + 1;

/// The packed sums by name, in the order of the contract.
struct Sums {
  double *count, *h_pre, *h_post, *h_res, *h_res_square, *read_share, *write_share, *read_entropy,
      *write_entropy, *read_signal_share, *write_signal_share, *gram, *norm, *cosine,
      *differential_energy, *curvature, *curvature_count, *position_curvature,
      *position_curvature_count;

  Sums(double* data, int n) {
    const auto take = [&](int size) {
      double* field = data;
      data += size;
      return field;
    };
    count = take(1);
    h_pre = take(n);
    h_post = take(n);
    h_res = take(n * n);
    h_res_square = take(n * n);
    read_share = take(n);
    write_share = take(n);
    read_entropy = take(1);
    write_entropy = take(1);
    read_signal_share = take(n);
    write_signal_share = take(n);
    gram = take((n + 1) * (n + 1));
    norm = take(n + 1);
    cosine = take(n * n);
    differential_energy = take(1);
    curvature = take(n);
    curvature_count = take(n);
    position_curvature = take(n);
    position_curvature_count = take(n);
  }
};

double ratio(double numerator, double denominator) {
  return denominator == 0 ? 0 : numerator / denominator;
}

/// Adds values / sum(values) to `sums`, and its entropy to *entropy unless that is null.
void add_share(const double* values, int n, double* sums, double* entropy) {
  double total = 0;
  for (int i = 0; i < n; ++i) total += values[i];
  for (int i = 0; i < n; ++i) {
    const double share = ratio(values[i], total);
    sums[i] += share;
    if (entropy && share != 0) *entropy -= share * std::log(share);
  }
}

/// Adds the angle between vectors of squared norms a and b with this inner product, where both
/// count.
void add_angle(double dot, double a, double b, double* angle, double* count) {
  if (!(a > 0 && b > 0 && std::isfinite(a) && std::isfinite(b))) return;
  const double cosine = dot / (std::sqrt(a) * std::sqrt(b));
  *angle += std::acos(cosine > 1 ? 1 : cosine < -1 ? -1 : cosine);
  *count += 1;
}

/// Inner products of `row` with kCount rows that are `stride` apart.
template <int kCount>
void inner_products(const double* row, const double* others, int64_t stride, double* out) {
  lanes_t sum[kCount];
  for (int k = 0; k < kCount; ++k) sum[k] = lanes_t::set(0);
  for (int64_t c = 0; c < stride; c += lanes_t::size) {
    const lanes_t value = lanes_t::load(row + c);
    for (int k = 0; k < kCount; ++k) {
      sum[k] = fma(value, lanes_t::load(others + k * stride + c), sum[k]);
    }
  }
  for (int k = 0; k < kCount; ++k) out[k] = sum[k].sum();
}

/// The rows of the current token and what angles need of the tokens before it.
class Window {
 public:
  explicit Window(const StreamStatsArgs& args)
      : args_(args),
        n_(args.n_streams),
        stride_((args.width + lanes_t::size - 1) / lanes_t::size * lanes_t::size),
        buffer_((3 * n_ + 2) * stride_),
        rows_(buffer_.data()),
        previous_(rows_ + (n_ + 1) * stride_),
        step_(previous_ + (n_ + 1) * stride_) {
    zero_row((3 * n_ + 2) * stride_, buffer_.data());
  }

  /// Moves on to token t; adds its angles to `sums` unless null.
  void advance(int64_t t, const Sums* sums) {
    double* rows = previous_;
    previous_ = rows_;
    rows_ = rows;
    for (int i = 0; i < n_; ++i) {
      load_row(args_.dtype, args_.x.data, t * args_.x.token_stride + i * args_.x.stream_stride,
               args_.width, rows_ + i * stride_);
    }
    const int64_t position = t % args_.sequence;
    for (int i = 0; i < n_; ++i) {
      const int64_t row = i * stride_;
      lanes_t square = lanes_t::set(0), along = square, step_square = square, turn = square;
      for (int64_t c = row; c < row + stride_; c += lanes_t::size) {
        const lanes_t value = lanes_t::load(rows_ + c), before = lanes_t::load(previous_ + c);
        const lanes_t step = value - before;
        square = fma(value, value, square);
        along = fma(value, before, along);
        step_square = fma(step, step, step_square);
        turn = fma(step, lanes_t::load(step_ + c), turn);
        step.store(step_ + c);
      }
      const double new_square = square.sum(), new_step_square = step_square.sum();
      if (sums && position >= 1) {
        add_angle(along.sum(), square_[i], new_square, sums->position_curvature + i,
                  sums->position_curvature_count + i);
      }
      if (sums && position >= 2) {
        add_angle(turn.sum(), step_square_[i], new_step_square, sums->curvature + i,
                  sums->curvature_count + i);
      }
      square_[i] = new_square;
      step_square_[i] = new_step_square;
    }
  }

  /// Gram matrix [n + 1, n + 1] of the current streams and y.
  void gram(int64_t t, double* gram) {
    const int size = n_ + 1;
    if (args_.y.data) {
      load_row(args_.y_dtype, args_.y.data, t * args_.y.token_stride, args_.width,
               rows_ + n_ * stride_);
    }
    for (int a = 0; a < size; ++a) {
      for (int b = a; b < size; b += 4) {
        const double* others = rows_ + b * stride_;
        double* out = gram + a * size + b;
        const auto products = b + 4 <= size   ? inner_products<4>
                              : b + 3 == size ? inner_products<3>
                              : b + 2 == size ? inner_products<2>
                                              : inner_products<1>;
        products(rows_ + a * stride_, others, stride_, out);
      }
      for (int b = 0; b < a; ++b) gram[a * size + b] = gram[b * size + a];
    }
  }

 private:
  const StreamStatsArgs& args_;
  int n_;
  int64_t stride_;
  Scratch<double> buffer_;
  double *rows_, *previous_, *step_;
  double square_[kMaxStreams] = {}, step_square_[kMaxStreams] = {};
};

/// Row t of coefficients in double; zeros when there are none.
void load_coefficients(const StreamStatsArgs& args, const RowsView& rows, int64_t t, int64_t size,
                       double* out) {
  if (!rows.data) return zero_row(size, out);
  const DType dtype = args.dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  load_row(dtype, rows.data, t * rows.token_stride, size, out);
}

void add_coefficients(const StreamStatsArgs& args, int64_t t, const double* norm,
                      const Sums& sums) {
  const int n = args.n_streams;
  double p[kMaxStreams], q[kMaxStreams], r[kMaxStreams * kMaxStreams], values[kMaxStreams];
  load_coefficients(args, args.h_pre, t, n, p);
  load_coefficients(args, args.h_post, t, n, q);
  load_coefficients(args, args.h_res, t, n * n, r);
  if (!args.h_res.data && args.h_post.data) {
    for (int i = 0; i < n; ++i) r[i * n + i] = 1;
  }
  add_row(p, n, sums.h_pre);
  add_row(q, n, sums.h_post);
  add_row(r, n * n, sums.h_res);
  for (int k = 0; k < n * n; ++k) sums.h_res_square[k] += r[k] * r[k];
  for (int i = 0; i < n; ++i) values[i] = std::fabs(p[i]);
  add_share(values, n, sums.read_share, sums.read_entropy);
  for (int i = 0; i < n; ++i) values[i] *= norm[i];
  add_share(values, n, sums.read_signal_share, nullptr);
  for (int i = 0; i < n; ++i) values[i] = std::fabs(q[i]);
  add_share(values, n, sums.write_share, sums.write_entropy);
  for (int i = 0; i < n; ++i) values[i] *= values[i];
  add_share(values, n, sums.write_signal_share, nullptr);
}

void add_geometry(const double* gram, const double* norm, int n, const Sums& sums) {
  const int size = n + 1;
  add_row(gram, size * size, sums.gram);
  add_row(norm, size, sums.norm);
  double energy = 0, total = 0;
  for (int i = 0; i < n; ++i) {
    energy += gram[i * size + i];
    for (int j = 0; j < n; ++j) {
      total += gram[i * size + j];
      sums.cosine[i * n + j] += ratio(gram[i * size + j], norm[i] * norm[j]);
    }
  }
  *sums.differential_energy += ratio(energy - total / n, energy);
}

void add_tokens(const StreamStatsArgs& args, int64_t begin, int64_t end, const Sums& sums) {
  const int n = args.n_streams, size = n + 1;
  Window window(args);
  const int64_t position = begin % args.sequence;
  for (int64_t t = begin - (position < 2 ? position : 2); t < begin; ++t) {
    window.advance(t, nullptr);
  }
  double gram[kMaxRows * kMaxRows], norm[kMaxRows];
  for (int64_t t = begin; t < end; ++t) {
    window.advance(t, &sums);
    window.gram(t, gram);
    for (int i = 0; i < size; ++i) norm[i] = std::sqrt(gram[i * size + i]);
    add_geometry(gram, norm, n, sums);
    add_coefficients(args, t, norm, sums);
  }
  *sums.count += static_cast<double>(end - begin);
}

}  // namespace

void stream_stats(const StreamStatsArgs& args, ParallelFor parallel_for) {
  const int64_t size = stream_stats_size(args.n_streams);
  const int64_t parts = token_partitions(args.tokens);
  parallel(parallel_for, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      double* partial = args.partials + part * size;
      zero_row(size, partial);
      add_tokens(args, partition_begin(args.tokens, parts, part),
                 partition_begin(args.tokens, parts, part + 1), Sums(partial, args.n_streams));
    }
  });
  sum_partials(args.partials, parts, size, size, args.stats);
}

}  // namespace HYPERSTREAMS_ISA_NAMESPACE

HYPERSTREAMS_CPU_ENTRY(stream_stats, StreamStatsArgs)

}  // namespace hyperstreams::cpu
