#include "hyperstreams/project.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernel_testing.h"

namespace hyperstreams::testing {
namespace {

constexpr double kEps = 1e-2;

template <class T>
struct Problem {
  ProjectShape shape;
  int64_t stream_stride, token_stride;
  std::vector<T> x, phi, norm_weight, grad_logits, grad_inv_rms;

  Problem(int64_t tokens, int n, int64_t width, int64_t n_logits, DType dtype)
      : shape{tokens, n, width, n_logits, dtype},
        stream_stride(width + 3),
        token_stride(n * stream_stride + 5),
        x(random_values<T>(tokens * token_stride + 1, 1)),
        phi(random_values<T>(n_logits * n * width, 2)),
        norm_weight(random_values<T>(n * width, 3)),
        grad_logits(random_values<T>(tokens * n_logits + 1, 4)),
        grad_inv_rms(random_values<T>(tokens + 1, 5)) {}

  StreamsView view() const { return {x.data(), token_stride, stream_stride}; }
  double v(int64_t t, int64_t d) const {
    return x[t * token_stride + d / shape.width * stream_stride + d % shape.width];
  }
};

template <class T>
struct Result {
  Guarded<T> logits, inv_rms, grad_x, grad_phi, grad_norm_weight;

  Result(Problem<T>& p, bool weighted, EpsPosition position, ParallelFor parallel_for)
      : logits(p.shape.tokens * p.shape.n_logits),
        inv_rms(p.shape.tokens),
        grad_x(p.shape.tokens * p.shape.features()),
        grad_phi(p.shape.n_logits * p.shape.features()),
        grad_norm_weight(p.shape.features()) {
    Guarded<T> workspace(project_workspace(p.shape));
    Guarded<T> backward_workspace(project_backward_workspace(p.shape));
    const T* norm = weighted ? p.norm_weight.data() : nullptr;
    cpu::project_forward({p.shape, p.view(), p.phi.data(), norm, kEps, position, logits.data(),
                          inv_rms.data(), workspace.data()},
                         parallel_for);
    cpu::project_backward(
        {p.shape, p.view(), p.phi.data(), norm, inv_rms.data(), p.grad_logits.data(),
         p.grad_inv_rms.data(), kEps, position, grad_x.data(), grad_phi.data(),
         weighted ? grad_norm_weight.data() : nullptr, backward_workspace.data()},
        parallel_for);
    EXPECT_TRUE(logits.intact() && inv_rms.intact() && grad_x.intact() && grad_phi.intact());
    EXPECT_TRUE(grad_norm_weight.intact() && workspace.intact() && backward_workspace.intact());
  }
};

double inverse_rms(double mean_square, EpsPosition position) {
  if (position == EpsPosition::kInside) return 1 / std::sqrt(mean_square + kEps);
  if (position == EpsPosition::kOutside) return 1 / (std::sqrt(mean_square) + kEps);
  return 1 / std::max(std::sqrt(mean_square), kEps);
}

template <class T>
void check(Problem<T> p, bool weighted, EpsPosition position, double tolerance,
           ParallelFor parallel_for) {
  Result<T> r(p, weighted, position, parallel_for);
  const int64_t features = p.shape.features(), n_logits = p.shape.n_logits;
  const auto weight = [&](int64_t d) { return weighted ? double(p.norm_weight[d]) : 1.0; };
  std::vector<double> grad_weight(static_cast<size_t>(n_logits * features), 0.0);
  for (int64_t t = 0; t < p.shape.tokens; ++t) {
    double mean_square = 0;
    for (int64_t d = 0; d < features; ++d) mean_square += p.v(t, d) * p.v(t, d) / features;
    EXPECT_NEAR(r.inv_rms[t], inverse_rms(mean_square, position), tolerance);
    const double h = 1e-6;
    const double slope =
        (inverse_rms(mean_square + h, position) - inverse_rms(mean_square - h, position)) / (2 * h);
    for (int64_t k = 0; k < n_logits; ++k) {
      double sum = 0;
      for (int64_t d = 0; d < features; ++d) {
        sum += p.v(t, d) * weight(d) * p.phi[k * features + d];
        grad_weight[k * features + d] += p.grad_logits[t * n_logits + k] * p.v(t, d);
      }
      EXPECT_NEAR(r.logits[t * n_logits + k], sum, tolerance * 10);
    }
    for (int64_t d = 0; d < features; ++d) {
      double grad = p.grad_inv_rms[t] * slope * 2 * p.v(t, d) / features;
      for (int64_t k = 0; k < n_logits; ++k) {
        grad += p.grad_logits[t * n_logits + k] * weight(d) * p.phi[k * features + d];
      }
      EXPECT_NEAR(r.grad_x[t * features + d], grad, tolerance * 10 + 1e-6);
    }
  }
  for (int64_t d = 0; d < features; ++d) {
    double grad_norm = 0;
    for (int64_t k = 0; k < n_logits; ++k) {
      EXPECT_NEAR(r.grad_phi[k * features + d], grad_weight[k * features + d] * weight(d),
                  tolerance * 30);
      grad_norm += grad_weight[k * features + d] * p.phi[k * features + d];
    }
    if (weighted) {
      EXPECT_NEAR(r.grad_norm_weight[d], grad_norm, tolerance * 100);
    }
  }
}

TEST(Project, EqualsPlainLoopsAtEveryIsaLevel) {
  struct Case {
    int64_t tokens;
    int n;
    int64_t width, n_logits;
  };
  const Case cases[] = {{0, 4, 8, 3},   {1, 1, 1, 1},   {13, 4, 17, 24},
                        {70, 3, 33, 6}, {7, 2, 290, 9}, {5, 8, 16, 160}};
  for (const cpu::IsaLevel level : isa_levels()) {
    const AtIsaLevel at(level);
    for (const Case& c : cases) {
      for (const EpsPosition position :
           {EpsPosition::kInside, EpsPosition::kOutside, EpsPosition::kFloor}) {
        SCOPED_TRACE(::testing::Message() << cpu::isa_name(level) << " T=" << c.tokens
                                          << " n=" << c.n << " C=" << c.width << " K=" << c.n_logits
                                          << " eps " << static_cast<int>(position));
        check<float>({c.tokens, c.n, c.width, c.n_logits, DType::kFloat32}, true, position, 1e-5,
                     serial);
        check<double>({c.tokens, c.n, c.width, c.n_logits, DType::kFloat64}, false, position, 1e-12,
                      threaded);
      }
    }
  }
}

TEST(Project, SameBitsOnAnyThreadsAndOnAvx2AndAvx512) {
  Problem<float> p(517, 4, 77, 32, DType::kFloat32);
  std::vector<std::vector<float>> results;
  for (const cpu::IsaLevel level : isa_levels()) {
    if (level == cpu::IsaLevel::kBase) continue;
    const AtIsaLevel at(level);
    for (const ParallelFor parallel_for : {&serial, &threaded}) {
      Result<float> r(p, true, EpsPosition::kInside, parallel_for);
      std::vector<float> all = r.logits.copy();
      for (auto* part : {&r.inv_rms, &r.grad_x, &r.grad_phi, &r.grad_norm_weight}) {
        for (const float value : part->copy()) all.push_back(value);
      }
      results.push_back(all);
    }
  }
  for (const auto& result : results) EXPECT_EQ(result, results.front());
}

}  // namespace
}  // namespace hyperstreams::testing
