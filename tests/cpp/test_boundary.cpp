// boundary against the chain of the single ops: the forward bit for bit, the backward closely.
#include "hyperstreams/boundary.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernel_testing.h"

namespace hyperstreams::testing {
namespace {

struct Case {
  int64_t tokens;
  int n_streams;
  int64_t width;
  bool write;
  bool controller;
  bool per_stream;
  bool given_weights;
  bool static_write;  // h_res, h_post and given weights shared by all tokens; a bias
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << "T=" << c.tokens << " n=" << c.n_streams << " C=" << c.width << " write=" << c.write
             << " controller=" << c.controller << " per_stream=" << c.per_stream
             << " given=" << c.given_weights << " static=" << c.static_write;
}

/// Every kind of boundary for one shape.
void add_cases(int64_t tokens, int n, int64_t width, std::vector<Case>& all) {
  all.push_back({tokens, n, width, true, true, false, false, false});
  all.push_back({tokens, n, width, true, true, true, false, true});
  all.push_back({tokens, n, width, false, true, false, false, false});
  all.push_back({tokens, n, width, false, true, true, true, false});
  all.push_back({tokens, n, width, true, true, false, true, true});
  all.push_back({tokens, n, width, true, false, false, true, false});
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const int n : {1, 2, 3, 4, 5, 8, 16}) add_cases(13, n, 37, all);
  for (const int64_t width : {1, 16, 71}) {
    for (const int64_t tokens : {0, 1, 61}) add_cases(tokens, 4, width, all);
  }
  add_cases(301, 3, 20, all);  // several partitions
  return all;
}

template <class T>
constexpr DType kDType = sizeof(T) == 8 ? DType::kFloat64 : DType::kFloat32;

/// Inputs, gradients of the outputs, and the arguments of every op in the chain.
template <class T>
struct Problem {
  Case c;
  int64_t n, size, token_stride, project_logits, logit_count, rms, parts;
  CoefficientSettings settings = {};
  ProjectShape shape;
  std::vector<T> x, y, h_res, h_post, write_bias, phi, norm_weight, alpha, bias, weights;
  std::vector<T> grad_state, grad_u, grad_pre, grad_post, grad_res;

  explicit Problem(const Case& chosen)
      : c(chosen),
        n(c.n_streams),
        size(c.tokens * n * c.width),
        // Per stream without a write needs contiguous streams.
        token_stride(n * c.width + (c.per_stream && !c.write ? 0 : 5)),
        project_logits(c.per_stream ? 2 + n : 2 * n + n * n),
        logit_count(2 * n + n * n),
        rms(c.per_stream ? n : 1),
        shape{c.per_stream ? c.tokens * n : c.tokens, c.per_stream ? 1 : c.n_streams, c.width,
              project_logits, kDType<T>},
        x(random_values<T>(c.tokens * token_stride + 1, 1)),
        y(random_values<T>(c.tokens * c.width + 1, 2)),
        h_res(random_values<T>((c.static_write ? 1 : c.tokens) * n * n + 1, 3)),
        h_post(random_values<T>((c.static_write ? 1 : c.tokens) * n + 1, 4)),
        write_bias(random_values<T>(c.width, 5)),
        phi(random_values<T>(project_logits * shape.features(), 6)),
        norm_weight(random_values<T>(shape.features(), 7)),
        alpha(random_values<T>(3, 8)),
        bias(random_values<T>(logit_count, 9)),
        weights(random_values<T>((c.static_write ? 1 : c.tokens) * n + 1, 10)),
        grad_state(random_values<T>(size + 1, 11)),
        grad_u(random_values<T>(c.tokens * c.width + 1, 12)),
        grad_pre(random_values<T>(c.tokens * n + 1, 13)),
        grad_post(random_values<T>(c.tokens * n + 1, 14)),
        grad_res(random_values<T>(c.tokens * n * n + 1, 15)) {
    settings.n_streams = c.n_streams;
    settings.per_stream = c.per_stream;
    settings.read = {ActivationKind::kSigmoid, false, 1.0, 0.0};
    settings.write = {ActivationKind::kTanh, true, 2.0, 0.5};
    settings.mix = {ActivationKind::kNone, false, 1.0, 0.0};
    settings.mix_groups = 1;
    settings.mix_group_sizes[0] = static_cast<int>(n * n);
    settings.map = MapKind::kFree;
    parts = boundary_partitions(c.controller ? &shape : nullptr, c.tokens, c.width);
  }

  StreamsView x_view() const { return {x.data(), token_stride, c.width}; }
  RowsView rows(const std::vector<T>& values, int64_t row) const {
    return {values.data(), c.static_write ? 0 : row};
  }
  const void* bias_data() const { return c.static_write ? write_bias.data() : nullptr; }
};

/// Every output of forward and backward, in one order for boundary and for the chain.
template <class T>
struct Results {
  Guarded<T> state, u, pre, post, res, logits, inv_rms;
  Guarded<T> grad_x, grad_y, grad_mix, grad_write, grad_write_bias, grad_phi, grad_norm, grad_alpha,
      grad_bias, grad_weights;

  explicit Results(const Problem<T>& p)
      : state(p.size),
        u(p.c.tokens * p.c.width),
        pre(p.c.tokens * p.n),
        post(p.c.tokens * p.n),
        res(p.c.tokens * p.n * p.n),
        logits(p.c.tokens * p.logit_count),
        inv_rms(p.c.tokens * p.rms),
        grad_x(p.size),
        grad_y(p.c.tokens * p.c.width),
        grad_mix((p.c.static_write ? 1 : p.c.tokens) * p.n * p.n),
        grad_write((p.c.static_write ? 1 : p.c.tokens) * p.n),
        grad_write_bias(p.c.width),
        grad_phi(static_cast<int64_t>(p.phi.size())),
        grad_norm(static_cast<int64_t>(p.norm_weight.size())),
        grad_alpha(3),
        grad_bias(p.logit_count),
        grad_weights((p.c.static_write ? 1 : p.c.tokens) * p.n) {}

  std::vector<Guarded<T>*> forward(const Case& c) {
    std::vector<Guarded<T>*> all = {&u};
    if (c.write) all.push_back(&state);
    if (c.controller) all.insert(all.end(), {&pre, &post, &res, &logits, &inv_rms});
    return all;
  }
  std::vector<Guarded<T>*> backward(const Case& c) {
    std::vector<Guarded<T>*> all = {&grad_x};
    if (c.write) all.insert(all.end(), {&grad_y, &grad_mix, &grad_write});
    if (c.write && c.static_write) all.push_back(&grad_write_bias);
    if (c.controller) all.insert(all.end(), {&grad_phi, &grad_norm, &grad_alpha, &grad_bias});
    if (c.given_weights) all.push_back(&grad_weights);
    return all;
  }
};

template <class T>
struct Arguments {
  const Problem<T>& p;
  Results<T>& r;
  std::vector<T> workspace, back_workspace, bias_partials;
  std::vector<double> write_partials, coefficient_partials, read_partials;
  StreamsView state;
  MixWriteArgs write;
  ProjectArgs project;
  CoefficientsArgs coefficients;
  ReadArgs read;

  Arguments(const Problem<T>& problem, Results<T>& results)
      : p(problem),
        r(results),
        workspace(project_workspace(p.shape)),
        back_workspace(project_backward_workspace(p.shape)),
        bias_partials(64 * p.c.width),
        write_partials(64 * (p.n * p.n + p.n)),
        coefficient_partials(64 * (3 + p.logit_count)),
        read_partials(64 * p.n),
        state(p.c.write ? StreamsView{r.state.data(), p.n * p.c.width, p.c.width} : p.x_view()),
        write{p.c.tokens,
              p.c.n_streams,
              p.c.width,
              kDType<T>,
              kDType<T>,
              p.x_view(),
              {p.y.data(), p.c.width},
              p.rows(p.h_res, p.n * p.n),
              p.rows(p.h_post, p.n),
              p.bias_data(),
              r.state.data()},
        project{p.shape,
                project_view(),
                p.phi.data(),
                p.norm_weight.data(),
                1e-3,
                EpsPosition::kInside,
                r.logits.data(),
                r.inv_rms.data(),
                workspace.data()},
        coefficients{p.c.tokens,
                     kDType<T>,
                     p.settings,
                     {r.logits.data(), p.logit_count},
                     {r.inv_rms.data(), p.rms},
                     p.alpha.data(),
                     p.bias.data(),
                     r.pre.data(),
                     r.post.data(),
                     r.res.data()},
        read{p.c.tokens, p.c.n_streams, p.c.width, kDType<T>, state, read_weights(), r.u.data()} {}

  StreamsView project_view() const {
    return p.c.per_stream ? StreamsView{state.data, p.c.width, p.c.width} : state;
  }
  RowsView read_weights() const {
    return p.c.given_weights ? p.rows(p.weights, p.n) : RowsView{r.pre.data(), p.n};
  }

  MixWriteBackwardArgs write_backward(const void* grad_out) {
    return {p.c.tokens,
            p.c.n_streams,
            p.c.width,
            kDType<T>,
            kDType<T>,
            {grad_out, p.n * p.c.width, p.c.width},
            p.x_view(),
            {p.y.data(), p.c.width},
            p.rows(p.h_res, p.n * p.n),
            p.rows(p.h_post, p.n),
            p.bias_data(),
            r.grad_x.data(),
            r.grad_y.data(),
            r.grad_mix.data(),
            r.grad_write.data(),
            r.grad_write_bias.data(),
            write_partials.data(),
            bias_partials.data()};
  }
  CoefficientsBackwardArgs coefficients_backward(const T* grad_pre, T* grad_logits, T* grad_rms) {
    return {p.c.tokens,
            kDType<T>,
            p.settings,
            {grad_pre, p.n},
            {p.grad_post.data(), p.n},
            {p.grad_res.data(), p.n * p.n},
            {r.logits.data(), p.logit_count},
            {r.inv_rms.data(), p.rms},
            p.alpha.data(),
            p.bias.data(),
            grad_logits,
            grad_rms,
            r.grad_alpha.data(),
            r.grad_bias.data(),
            coefficient_partials.data()};
  }
  ProjectBackwardArgs project_backward(const T* grad_logits, const T* grad_rms, T* grad_x) {
    return {p.shape,
            project_view(),
            p.phi.data(),
            p.norm_weight.data(),
            r.inv_rms.data(),
            grad_logits,
            grad_rms,
            1e-3,
            EpsPosition::kInside,
            grad_x,
            r.grad_phi.data(),
            r.grad_norm.data(),
            back_workspace.data()};
  }
  ReadBackwardArgs read_backward(T* grad_x, T* grad_weights) {
    return {p.c.tokens,
            p.c.n_streams,
            p.c.width,
            kDType<T>,
            state,
            read_weights(),
            {p.grad_u.data(), p.c.width},
            grad_x,
            grad_weights,
            read_partials.data()};
  }
};

template <class T>
void run_chain(const Problem<T>& p, Results<T>& r) {
  Arguments<T> a(p, r);
  if (p.c.write) cpu::mix_write_forward(a.write, serial);
  if (p.c.controller) {
    cpu::project_forward(a.project, serial);
    cpu::coefficients_forward(a.coefficients, serial);
  }
  cpu::read_forward(a.read, serial);

  const int64_t streams = p.size + 1;
  std::vector<T> grad(streams), of_read(streams), of_project(streams);
  std::vector<T> of_weights(p.c.tokens * p.n + p.n + 1), grad_pre = p.grad_pre;
  std::vector<T> grad_logits(p.c.tokens * p.logit_count + 1), grad_rms(p.c.tokens * p.rms + 1);
  T* weights_out = p.c.given_weights ? r.grad_weights.data() : of_weights.data();
  cpu::read_backward(a.read_backward(of_read.data(), weights_out), serial);
  if (p.c.controller) {
    for (int64_t k = 0; !p.c.given_weights && k < p.c.tokens * p.n; ++k) {
      grad_pre[k] += of_weights[k];
    }
    cpu::coefficients_backward(
        a.coefficients_backward(grad_pre.data(), grad_logits.data(), grad_rms.data()), serial);
    cpu::project_backward(
        a.project_backward(grad_logits.data(), grad_rms.data(), of_project.data()), serial);
  }
  for (int64_t k = 0; k < p.size; ++k) {
    grad[k] = (p.c.write ? p.grad_state[k] : T(0)) + of_read[k] + of_project[k];
  }
  if (p.c.write) {
    cpu::mix_write_backward(a.write_backward(grad.data()), serial);
  } else {
    std::copy(grad.begin(), grad.begin() + p.size, r.grad_x.data());
  }
}

template <class T>
void run_boundary(const Problem<T>& p, Results<T>& r, ParallelFor parallel_for) {
  Arguments<T> a(p, r);
  cpu::boundary_forward({p.c.write ? &a.write : nullptr, p.c.controller ? &a.project : nullptr,
                         p.c.controller ? &a.coefficients : nullptr, a.read},
                        parallel_for);
  ASSERT_LE(p.parts, 64);
  const MixWriteBackwardArgs write = a.write_backward(p.grad_state.data());
  const CoefficientsBackwardArgs coefficients =
      a.coefficients_backward(p.grad_pre.data(), nullptr, nullptr);
  const ProjectBackwardArgs project = a.project_backward(nullptr, nullptr, nullptr);
  cpu::boundary_backward({p.c.write ? &write : nullptr, p.c.controller ? &project : nullptr,
                          p.c.controller ? &coefficients : nullptr,
                          a.read_backward(p.c.write ? nullptr : r.grad_x.data(),
                                          p.c.given_weights ? r.grad_weights.data() : nullptr)},
                         parallel_for);
}

/// Norm of the difference over the norm.
template <class T>
double distance(Guarded<T>& got, Guarded<T>& want) {
  double difference = 0, norm = 0;
  for (int64_t k = 0; k < got.size(); ++k) {
    difference += (double(got[k]) - want[k]) * (double(got[k]) - want[k]);
    norm += double(want[k]) * want[k];
  }
  return difference == 0 ? 0 : std::sqrt(difference / norm);
}

template <class T>
void check(const Case& c) {
  const Problem<T> problem(c);
  Results<T> chain(problem), serially(problem), in_threads(problem);
  run_chain(problem, chain);
  run_boundary(problem, serially, serial);
  run_boundary(problem, in_threads, threaded);
  const auto want = chain.forward(c), got = serially.forward(c), again = in_threads.forward(c);
  for (size_t k = 0; k < want.size(); ++k) {
    EXPECT_TRUE(got[k]->intact() && again[k]->intact()) << c << " output " << k;
    EXPECT_EQ(got[k]->copy(), want[k]->copy()) << c << " output " << k;
    EXPECT_EQ(again[k]->copy(), want[k]->copy()) << c << " output " << k;
  }
  const auto want_grads = chain.backward(c), grads = serially.backward(c);
  const auto grads_again = in_threads.backward(c);
  for (size_t k = 0; k < grads.size(); ++k) {
    EXPECT_TRUE(grads[k]->intact() && grads_again[k]->intact()) << c << " gradient " << k;
    EXPECT_EQ(grads_again[k]->copy(), grads[k]->copy()) << c << " gradient " << k;
    EXPECT_LE(distance(*grads[k], *want_grads[k]), sizeof(T) == 8 ? 1e-13 : 1e-5)
        << c << " gradient " << k;
  }
}

TEST(Boundary, IsTheChainOfOps) {
  for (const cpu::IsaLevel level : isa_levels()) {
    const AtIsaLevel at(level);
    SCOPED_TRACE(cpu::isa_name(level));
    for (const Case& c : cases()) check<float>(c);
  }
}

TEST(Boundary, IsTheChainOfOpsInDouble) {
  std::vector<Case> few;
  for (const int n : {3, 4}) add_cases(61, n, 23, few);
  for (const Case& c : few) check<double>(c);
}

}  // namespace
}  // namespace hyperstreams::testing
