// Inputs of stream_stats and what the contract defines of them, by plain loops; for both back ends.
#pragma once

#include <cmath>
#include <ostream>

#include "hyperstreams/stream_stats.h"
#include "kernel_testing.h"

namespace hyperstreams::testing::stream_stats_cases {

struct Case {
  int64_t sequences;
  int64_t sequence;
  int n_streams;
  int64_t width;
  bool has_y;
  bool has_pre;
  bool has_post;
  bool has_mix;
  bool is_static;
};

inline std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << "T=" << c.sequences << "x" << c.sequence << " n=" << c.n_streams << " C=" << c.width
             << " y=" << c.has_y << " pre=" << c.has_pre << " post=" << c.has_post
             << " mix=" << c.has_mix << " static=" << c.is_static;
}

// Streams sit inside a wider buffer, so that strides differ from the contiguous ones.
template <class T>
struct Problem {
  Case c;
  int64_t tokens, stream_stride, token_stride, h_stride, res_stride;
  std::vector<T> x, y, h_pre, h_post, h_res;

  explicit Problem(const Case& shape)
      : c(shape),
        tokens(c.sequences * c.sequence),
        stream_stride(c.width + 3),
        token_stride(c.n_streams * stream_stride + 5),
        h_stride(c.is_static ? 0 : c.n_streams + 2),
        res_stride(c.is_static ? 0 : c.n_streams * c.n_streams + 1),
        x(random_values<T>(tokens * token_stride + 1, 1)),
        y(random_values<T>(tokens * (c.width + 1) + 1, 2)),
        h_pre(random_values<T>((tokens + 1) * (c.n_streams + 2), 3)),
        h_post(random_values<T>((tokens + 1) * (c.n_streams + 2), 4)),
        h_res(random_values<T>((tokens + 1) * (c.n_streams * c.n_streams + 1), 5)) {
    // A zero stream and a step of zero, which angles skip, and a zero coefficient.
    if (tokens > 3) {
      for (int64_t ch = 0; ch < c.width; ++ch) {
        x[2 * token_stride + ch] = x[token_stride + ch];
        x[3 * token_stride + ch] = 0;
      }
    }
    h_pre[0] = 0;
  }

  double x_at(int64_t t, int i, int64_t ch) const {
    if (i == c.n_streams) return c.has_y ? y[t * (c.width + 1) + ch] : T{0};
    return x[t * token_stride + i * stream_stride + ch];
  }
};

/// What the contract defines, one field after the other.
template <class T>
std::vector<double> expected(const Problem<T>& p) {
  const Case& c = p.c;
  const int n = c.n_streams;
  const auto inner = [&](int64_t t, int a, int64_t s, int b) {
    double sum = 0;
    for (int64_t ch = 0; ch < c.width; ++ch) sum += p.x_at(t, a, ch) * p.x_at(s, b, ch);
    return sum;
  };
  const auto step_inner = [&](int64_t t, int64_t s, int i) {
    double sum = 0;
    for (int64_t ch = 0; ch < c.width; ++ch) {
      sum += (p.x_at(t, i, ch) - p.x_at(t - 1, i, ch)) * (p.x_at(s, i, ch) - p.x_at(s - 1, i, ch));
    }
    return sum;
  };
  const auto pre = [&](int64_t t, int i) -> double {
    return c.has_pre ? p.h_pre[t * p.h_stride + i] : T{0};
  };
  const auto post = [&](int64_t t, int i) -> double {
    return c.has_post ? p.h_post[t * p.h_stride + i] : T{0};
  };
  const auto res = [&](int64_t t, int j, int i) -> double {
    if (c.has_mix) return p.h_res[t * p.res_stride + j * n + i];
    return c.has_post && i == j ? 1.0 : 0.0;
  };
  const auto norm = [&](int64_t t, int i) { return std::sqrt(inner(t, i, t, i)); };
  const auto share = [&](const auto& value, int i) {
    double total = 0;
    for (int k = 0; k < n; ++k) total += value(k);
    return total == 0 ? 0 : value(i) / total;
  };
  const auto entropy = [&](const auto& value) {
    double sum = 0;
    for (int i = 0; i < n; ++i) {
      const double s = share(value, i);
      if (s > 0) sum -= s * std::log(s);
    }
    return sum;
  };
  const auto angle = [](double dot, double a, double b) {
    return a > 0 && b > 0 ? std::acos(std::fmax(-1, std::fmin(1, dot / std::sqrt(a * b)))) : 0.0;
  };

  std::vector<double> out;
  const auto field = [&](int count, const auto& value) {
    for (int k = 0; k < count; ++k) {
      double sum = 0;
      for (int64_t t = 0; t < p.tokens; ++t) sum += value(t, k);
      out.push_back(sum);
    }
  };
  field(1, [](int64_t, int) { return 1.0; });
  field(n, pre);
  field(n, post);
  field(n * n, [&](int64_t t, int k) { return res(t, k / n, k % n); });
  field(n * n, [&](int64_t t, int k) { return std::pow(res(t, k / n, k % n), 2); });
  field(n, [&](int64_t t, int i) { return share([&](int k) { return std::fabs(pre(t, k)); }, i); });
  field(n,
        [&](int64_t t, int i) { return share([&](int k) { return std::fabs(post(t, k)); }, i); });
  field(1, [&](int64_t t, int) { return entropy([&](int k) { return std::fabs(pre(t, k)); }); });
  field(1, [&](int64_t t, int) { return entropy([&](int k) { return std::fabs(post(t, k)); }); });
  field(n, [&](int64_t t, int i) {
    return share([&](int k) { return std::fabs(pre(t, k)) * norm(t, k); }, i);
  });
  field(n,
        [&](int64_t t, int i) { return share([&](int k) { return post(t, k) * post(t, k); }, i); });
  field((n + 1) * (n + 1), [&](int64_t t, int k) { return inner(t, k / (n + 1), t, k % (n + 1)); });
  field(n + 1, norm);
  field(n * n, [&](int64_t t, int k) {
    const double product = norm(t, k / n) * norm(t, k % n);
    return product == 0 ? 0 : inner(t, k / n, t, k % n) / product;
  });
  field(1, [&](int64_t t, int) {
    double energy = 0, mean = 0;
    for (int64_t ch = 0; ch < c.width; ++ch) {
      double sum = 0;
      for (int i = 0; i < n; ++i) {
        sum += p.x_at(t, i, ch);
        energy += p.x_at(t, i, ch) * p.x_at(t, i, ch);
      }
      mean += sum / n * (sum / n);
    }
    return energy == 0 ? 0 : 1 - n * mean / energy;
  });
  const auto turn = [&](int64_t t, int i) {
    if (t % c.sequence < 2) return -1.0;
    const double a = step_inner(t - 1, t - 1, i), b = step_inner(t, t, i);
    return a > 0 && b > 0 ? angle(step_inner(t - 1, t, i), a, b) : -1.0;
  };
  const auto move = [&](int64_t t, int i) {
    if (t % c.sequence < 1) return -1.0;
    const double a = inner(t - 1, i, t - 1, i), b = inner(t, i, t, i);
    return a > 0 && b > 0 ? angle(inner(t - 1, i, t, i), a, b) : -1.0;
  };
  field(n, [&](int64_t t, int i) { return std::fmax(turn(t, i), 0); });
  field(n, [&](int64_t t, int i) { return turn(t, i) >= 0 ? 1.0 : 0.0; });
  field(n, [&](int64_t t, int i) { return std::fmax(move(t, i), 0); });
  field(n, [&](int64_t t, int i) { return move(t, i) >= 0 ? 1.0 : 0.0; });
  return out;
}

}  // namespace hyperstreams::testing::stream_stats_cases
