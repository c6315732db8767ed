// A call of boundary for the tests of its CUDA kernels: operands, results, and their definition:
// the forward by the CUDA ops one by one, the backward by the CPU's in double, both on X' as the
// forward stored it.
#pragma once

#include "coefficient_cases.h"
#include "cuda_testing.h"
#include "hyperstreams/boundary.h"
#include "hyperstreams/plan.h"
#include "kernels/cuda/boundary_plan.h"

namespace hyperstreams::cuda::testing {

namespace cases = hyperstreams::testing;

struct Case {
  int64_t tokens;
  int64_t width;
  CoefficientSettings settings;  // n_streams alone without a controller
  bool has_write = true, has_mix = true, has_bias = false, is_static = false;
  bool has_controller = true, has_norm = true, gives_weights = false;
  EpsPosition eps_position = EpsPosition::kInside;
  int64_t offset = 0, padding = 0;
};

inline std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << "T=" << c.tokens << " C=" << c.width << " " << cases::name(c.settings)
             << " write=" << c.has_write << " mix=" << c.has_mix << " bias=" << c.has_bias
             << " static=" << c.is_static << " controller=" << c.has_controller
             << " norm=" << c.has_norm << " given=" << c.gives_weights << " offset=" << c.offset
             << " padding=" << c.padding;
}

constexpr double kEps = 1e-3;

/// Everything that forward and backward return; empty where absent.
template <class S, class Y>
struct Outputs {
  std::vector<S> x_out, u, grad_x;
  std::vector<Y> grad_y;
  std::vector<float> h_pre, h_post, h_res, logits, inv_rms;
  std::vector<float> grad_h_res, grad_h_post, grad_write_bias, grad_phi, grad_norm, grad_alpha,
      grad_bias, grad_weights;

  std::vector<const std::vector<float>*> floats() const {
    return {&h_pre,      &h_post,      &h_res,           &logits,   &inv_rms,
            &grad_h_res, &grad_h_post, &grad_write_bias, &grad_phi, &grad_norm,
            &grad_alpha, &grad_bias,   &grad_weights};
  }
};

template <class S, class Y>
bool same_bits(const Outputs<S, Y>& a, const Outputs<S, Y>& b) {
  bool same = same_bytes(a.x_out, b.x_out) && same_bytes(a.u, b.u) &&
              same_bytes(a.grad_x, b.grad_x) && same_bytes(a.grad_y, b.grad_y);
  const auto left = a.floats(), right = b.floats();
  for (size_t k = 0; k < left.size(); ++k) same = same && same_bytes(*left[k], *right[k]);
  return same;
}

using Values = std::vector<double>;

/// Elementwise: within `bound` of the value and of the root mean square of all.
template <class Got>
void expect_near(const std::vector<Got>& got, const Values& want, double bound, const char* what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  double square = 0;
  for (const double value : want) square += value * value;
  const double rms = want.empty() ? 0 : std::sqrt(square / static_cast<double>(want.size()));
  for (size_t k = 0; k < want.size(); ++k) {
    ASSERT_NEAR(to_float(got[k]), want[k], bound * (std::abs(want[k]) + rms) + 1e-9)
        << what << " " << k;
  }
}

template <class S, class Y>
class Problem {
 public:
  explicit Problem(const Case& c)
      : c_(c),
        n_(c.settings.n_streams),
        rms_(c.settings.per_stream ? n_ : 1),
        logit_count_(2 * n_ + mix_logit_count(c.settings.map, c.settings.map_settings, n_)),
        shape_{c.tokens * rms_, n_ / rms_, c.width, logit_count_ / rms_, kDType<S>},
        // Per stream without a write, streams are contiguous.
        x_(c.tokens, n_, c.width, 1, c.offset, joined() ? 0 : c.padding),
        grad_(c.tokens, n_, c.width, 2, c.offset, c.padding),
        y_(c.tokens, 1, c.width, 3, c.offset, c.padding),
        grad_u_(c.tokens, 1, c.width, 4, c.offset, c.padding),
        write_bias_(1, 1, c.width, 5, c.offset),
        h_res_(c.tokens, n_ * n_, c.is_static, 6),
        h_post_(c.tokens, n_, c.is_static, 7),
        weights_(c.tokens, n_, c.is_static, 8),
        grad_pre_(c.tokens, n_, false, 9),
        grad_post_(c.tokens, n_, false, 10),
        grad_res_(c.tokens, n_ * n_, false, 11),
        phi_(random_values<float>(shape_.n_logits * shape_.features(), 12)),
        norm_(random_values<float>(shape_.features(), 13)),
        alpha_(random_values<float>(2 + c.settings.mix_groups, 14)),
        bias_(random_values<float>(logit_count_, 15)) {
    // Logits of about 1, whatever the width.
    const float scale = 2 / std::sqrt(static_cast<float>(shape_.features()));
    for (float& value : phi_) value *= scale;
  }

  /// change(plan): another plan for the forward.
  template <class Change>
  Outputs<S, Y> run(const Change& change) const {
    const int64_t size = c_.tokens * n_ * c_.width, rows = c_.is_static ? 1 : c_.tokens;
    const auto with = [](bool present, int64_t count) { return present ? count : 0; };
    const bool next = c_.has_controller, mixes = c_.has_write && c_.has_mix;
    const bool has_res = next && c_.settings.map != MapKind::kIdentity;
    Output<S> x_out(with(c_.has_write, size), c_.offset), u(c_.tokens * c_.width, c_.offset);
    Output<S> grad_x(size, c_.offset);
    Output<Y> grad_y(with(c_.has_write, c_.tokens * c_.width), c_.offset);
    Guarded<float> h_pre(with(next, c_.tokens * n_)), h_post(with(next, c_.tokens * n_));
    Guarded<float> h_res(with(has_res, c_.tokens * n_ * n_));
    Guarded<float> logits(with(next, c_.tokens * logit_count_)),
        inv_rms(with(next, c_.tokens * rms_));
    Guarded<float> grad_h_res(with(mixes, rows * n_ * n_)),
        grad_h_post(with(c_.has_write, rows * n_));
    Guarded<float> grad_write_bias(with(has_bias(), c_.width));
    Guarded<float> grad_phi(with(next, static_cast<int64_t>(phi_.size())));
    Guarded<float> grad_norm(with(next && c_.has_norm, shape_.features()));
    Guarded<float> grad_alpha(with(next, static_cast<int64_t>(alpha_.size())));
    Guarded<float> grad_bias(with(next, logit_count_)),
        grad_weights(with(c_.gives_weights, rows * n_));
    const BoundaryPlan plan = plan_boundary(
        boundary_shape(c_.tokens, n_, c_.width, kDType<S>, next ? &c_.settings : nullptr), 2);
    BoundaryPlan forward_plan = plan;
    const bool changed = change(forward_plan);
    Guarded<uint4> forward_scratch(forward_plan.forward.size / 4), scratch(plan.backward.size / 4);

    const StreamsView state =
        c_.has_write ? StreamsView{x_out.data(), n_ * c_.width, c_.width} : x_.streams();
    const RowsView weights = c_.gives_weights ? weights_.rows() : RowsView{h_pre.data(), n_};
    const MixWriteArgs write = write_args(x_out.data());
    const ProjectArgs project = {
        shape_,
        {state.data, c_.settings.per_stream ? c_.width : state.token_stride, state.stream_stride},
        phi_.data(),
        norm(),
        kEps,
        c_.eps_position,
        logits.data(),
        inv_rms.data(),
        nullptr};
    const CoefficientsArgs coefficients = {c_.tokens,
                                           DType::kFloat32,
                                           c_.settings,
                                           {logits.data(), logit_count_},
                                           {inv_rms.data(), rms_},
                                           alpha_.data(),
                                           bias_.data(),
                                           h_pre.data(),
                                           h_post.data(),
                                           h_res.data()};
    const BoundaryArgs args = {c_.has_write ? &write : nullptr,
                               next ? &project : nullptr,
                               next ? &coefficients : nullptr,
                               {c_.tokens, n_, c_.width, kDType<S>, state, weights, u.data()},
                               reinterpret_cast<float*>(forward_scratch.data())};
    EXPECT_EQ(
        changed ? boundary_forward(args, forward_plan, nullptr) : boundary_forward(args, nullptr),
        Status::kOk);

    const MixWriteBackwardArgs of_write = {c_.tokens,
                                           n_,
                                           c_.width,
                                           kDType<S>,
                                           kDType<Y>,
                                           grad_.streams(),
                                           write.x,
                                           write.y,
                                           write.h_res,
                                           write.h_post,
                                           write.bias,
                                           grad_x.data(),
                                           grad_y.data(),
                                           grad_h_res.data(),
                                           grad_h_post.data(),
                                           grad_write_bias.data(),
                                           nullptr,
                                           nullptr};
    const ProjectBackwardArgs of_project = {
        shape_,          {nullptr, 0, 0}, phi_.data(),     norm(),
        inv_rms.data(),  nullptr,         nullptr,         kEps,
        c_.eps_position, nullptr,         grad_phi.data(), norm() ? grad_norm.data() : nullptr,
        nullptr};
    const CoefficientsBackwardArgs of_coefficients = {c_.tokens,
                                                      DType::kFloat32,
                                                      c_.settings,
                                                      grad_pre_.rows(),
                                                      grad_post_.rows(),
                                                      grad_res_.rows(),
                                                      coefficients.logits,
                                                      coefficients.inv_rms,
                                                      alpha_.data(),
                                                      bias_.data(),
                                                      nullptr,
                                                      nullptr,
                                                      grad_alpha.data(),
                                                      grad_bias.data(),
                                                      nullptr};
    const ReadBackwardArgs of_read = {c_.tokens,
                                      n_,
                                      c_.width,
                                      kDType<S>,
                                      state,
                                      weights,
                                      grad_u_.rows(),
                                      c_.has_write ? nullptr : grad_x.data(),
                                      c_.gives_weights ? grad_weights.data() : nullptr,
                                      nullptr};
    EXPECT_EQ(boundary_backward({c_.has_write ? &of_write : nullptr, next ? &of_project : nullptr,
                                 next ? &of_coefficients : nullptr, of_read,
                                 reinterpret_cast<float*>(scratch.data())},
                                nullptr),
              Status::kOk);
    for (Guarded<float>* buffer :
         {&h_pre, &h_post, &h_res, &logits, &inv_rms, &grad_h_res, &grad_h_post, &grad_write_bias,
          &grad_phi, &grad_norm, &grad_alpha, &grad_bias, &grad_weights}) {
      EXPECT_TRUE(buffer->intact());
    }
    EXPECT_TRUE(x_out.intact() && u.intact() && grad_x.intact() && grad_y.intact());
    EXPECT_TRUE(forward_scratch.intact());
    EXPECT_TRUE(scratch.intact());
    return {x_out.values(),     u.values(),        grad_x.values(),    grad_y.values(),
            h_pre.copy(),       h_post.copy(),     h_res.copy(),       logits.copy(),
            inv_rms.copy(),     grad_h_res.copy(), grad_h_post.copy(), grad_write_bias.copy(),
            grad_phi.copy(),    grad_norm.copy(),  grad_alpha.copy(),  grad_bias.copy(),
            grad_weights.copy()};
  }

  Outputs<S, Y> run() const {
    return run([](BoundaryPlan&) { return false; });
  }

  void check(const Outputs<S, Y>& out) const {
    const std::vector<S> state = stored_state(out);
    check_forward(out, state);
    check_backward(out, Values(as_doubles(state)));
  }

 private:
  bool joined() const { return c_.settings.per_stream && !c_.has_write; }
  bool has_bias() const { return c_.has_write && c_.has_bias; }
  const float* norm() const { return c_.has_norm ? norm_.data() : nullptr; }

  MixWriteArgs write_args(void* x_out) const {
    const RowsView none{nullptr, 0};
    return {c_.tokens,      n_,
            c_.width,       kDType<S>,
            kDType<Y>,      x_.streams(),
            y_.rows(),      c_.has_mix ? h_res_.rows() : none,
            h_post_.rows(), has_bias() ? write_bias_.rows().data : nullptr,
            x_out};
  }

  /// X', contiguous.
  std::vector<S> stored_state(const Outputs<S, Y>& out) const {
    if (c_.has_write) return out.x_out;
    std::vector<S> state;
    for (int64_t t = 0; t < c_.tokens; ++t) {
      for (int i = 0; i < n_; ++i) {
        for (int64_t ch = 0; ch < c_.width; ++ch) {
          state.push_back(from_float<S>(x_.at(t, i, ch)));
        }
      }
    }
    return state;
  }

  template <class T>
  static Values as_doubles(const std::vector<T>& values) {
    Values out;
    for (const T value : values) out.push_back(to_float(value));
    return out;
  }
  template <class T>
  Values as_doubles(const Operand<T>& operand, int n) const {
    Values out;
    for (int64_t t = 0; t < c_.tokens; ++t) {
      for (int i = 0; i < n; ++i) {
        for (int64_t ch = 0; ch < c_.width; ++ch) out.push_back(operand.at(t, i, ch));
      }
    }
    return out;
  }
  Values as_doubles(const Coefficients& rows, int count, bool is_static) const {
    Values out;
    for (int64_t t = 0; t < (is_static ? 1 : c_.tokens); ++t) {
      for (int k = 0; k < count; ++k) out.push_back(rows.at(t, k));
    }
    return out;
  }

  void check_forward(const Outputs<S, Y>& out, const std::vector<S>& state) const {
    if (c_.has_write) {
      std::vector<S> expected(state.size());
      ASSERT_EQ(mix_write_forward(write_args(expected.data()), nullptr), Status::kOk);
      EXPECT_TRUE(same_bytes(out.x_out, expected)) << "X' has other bits than mix_write";
    }
    std::vector<float> h_pre = out.h_pre;
    if (c_.has_controller) {
      check_logits(out, state);
      std::vector<float> h_post(h_pre.size()), h_res(out.h_res.size());
      const int64_t space = 4096 * 64;  // of any map here
      std::vector<float> scratch(space);
      ASSERT_EQ(coefficients_forward({c_.tokens,
                                      DType::kFloat32,
                                      c_.settings,
                                      {out.logits.data(), logit_count_},
                                      {out.inv_rms.data(), rms_},
                                      alpha_.data(),
                                      bias_.data(),
                                      h_pre.data(),
                                      h_post.data(),
                                      h_res.data(),
                                      scratch.data()},
                                     nullptr),
                Status::kOk);
      EXPECT_TRUE(same_bytes(out.h_pre, h_pre) && same_bytes(out.h_post, h_post))
          << "other coefficients than those of its own logits";
      // The map is compiled for n, and may round differently.
      expect_near(out.h_res, as_doubles(h_res), 1e-5, "h_res");
    }
    std::vector<S> u(out.u.size());
    const RowsView weights = c_.gives_weights ? weights_.rows() : RowsView{h_pre.data(), n_};
    ASSERT_EQ(read_forward({c_.tokens,
                            n_,
                            c_.width,
                            kDType<S>,
                            {state.data(), n_ * c_.width, c_.width},
                            weights,
                            u.data()},
                           nullptr),
              Status::kOk);
    EXPECT_TRUE(same_bytes(out.u, u)) << "u has other bits than read";
  }

  /// Logits and statistics against their definition in double.
  void check_logits(const Outputs<S, Y>& out, const std::vector<S>& state) const {
    const int64_t features = shape_.features(), count = shape_.n_logits;
    for (int64_t row = 0; row < shape_.tokens; ++row) {
      double square = 0;
      for (int64_t d = 0; d < features; ++d) {
        const double value = to_float(state[row * features + d]);
        square += value * value / static_cast<double>(features);
      }
      const double rms = std::sqrt(square);
      const double inverse = c_.eps_position == EpsPosition::kInside ? 1 / std::sqrt(square + kEps)
                             : c_.eps_position == EpsPosition::kOutside ? 1 / (rms + kEps)
                                                                        : 1 / std::max(rms, kEps);
      ASSERT_NEAR(out.inv_rms[row], inverse, 1e-5 * inverse) << "row " << row;
      for (int64_t k = 0; k < count; ++k) {
        double sum = 0, size = 0;
        for (int64_t d = 0; d < features; ++d) {
          const double weight = double{phi_[k * features + d]} * (c_.has_norm ? norm_[d] : 1);
          sum += weight * to_float(state[row * features + d]);
          size += std::abs(weight * to_float(state[row * features + d]));
        }
        ASSERT_NEAR(out.logits[row * count + k], sum, 1e-6 * size + 1e-7) << row << " " << k;
      }
    }
  }

  /// The CPU's ops one by one, in double.
  void check_backward(const Outputs<S, Y>& out, const Values& state) const {
    const auto serial = hyperstreams::testing::serial;
    const int64_t tokens = c_.tokens, width = c_.width, n = n_, size = tokens * n * width;
    const DType type = DType::kFloat64;
    const StreamsView state_view{state.data(), n * width, width};
    const Values x = as_doubles(x_, n_), y = as_doubles(y_, 1), grad = as_doubles(grad_, n_);
    const Values grad_u = as_doubles(grad_u_, 1);
    const Values own = as_doubles(out.h_pre), given = as_doubles(weights_, n_, c_.is_static);
    const bool static_weights = c_.gives_weights && c_.is_static;
    const Values& weights = c_.gives_weights ? given : own;
    Values of_read(size), of_weights(weights.size());
    std::vector<double> partials(4096 * n * n + 4096 * n);
    cpu::read_backward({tokens,
                        n_,
                        width,
                        type,
                        state_view,
                        {weights.data(), static_weights ? 0 : n},
                        {grad_u.data(), width},
                        of_read.data(),
                        of_weights.data(),
                        partials.data()},
                       serial);
    Values of_project(size);
    if (c_.has_controller) {
      Values grad_pre = as_doubles(grad_pre_, n_, false);
      for (size_t k = 0; !c_.gives_weights && k < grad_pre.size(); ++k)
        grad_pre[k] += of_weights[k];
      check_controller(out, state, grad_pre, of_project);
    }
    if (c_.gives_weights) expect_near(out.grad_weights, of_weights, exact(), "grad_weights");
    Values total(size);
    for (int64_t k = 0; k < size; ++k) {
      total[k] = (c_.has_write ? grad[k] : 0) + of_read[k] + of_project[k];
    }
    if (!c_.has_write) return expect_near(out.grad_x, total, rounded(), "grad_x");
    const Values h_res = as_doubles(h_res_, n_ * n_, c_.is_static);
    const Values h_post = as_doubles(h_post_, n_, c_.is_static);
    Values bias_row;
    for (int64_t ch = 0; ch < width; ++ch) bias_row.push_back(write_bias_.at(0, 0, ch));
    Values grad_x(size), grad_y(tokens * width), grad_h_res(out.grad_h_res.size());
    Values grad_h_post(h_post.size()), grad_bias(out.grad_write_bias.size()),
        bias_partials(64 * width);
    const int64_t res_stride = c_.is_static ? 0 : n * n, post_stride = c_.is_static ? 0 : n;
    cpu::mix_write_backward({tokens,
                             n_,
                             width,
                             type,
                             type,
                             {total.data(), n * width, width},
                             {x.data(), n * width, width},
                             {y.data(), width},
                             {c_.has_mix ? h_res.data() : nullptr, res_stride},
                             {h_post.data(), post_stride},
                             has_bias() ? bias_row.data() : nullptr,
                             grad_x.data(),
                             grad_y.data(),
                             grad_h_res.data(),
                             grad_h_post.data(),
                             grad_bias.data(),
                             partials.data(),
                             bias_partials.data()},
                            serial);
    expect_near(out.grad_x, grad_x, rounded(), "grad_x");
    expect_near(out.grad_y, grad_y, std::max(exact(), 2 * kHalfUlp<Y>), "grad_y");
    expect_near(out.grad_h_res, grad_h_res, exact(), "grad_h_res");
    expect_near(out.grad_h_post, grad_h_post, exact(), "grad_h_post");
    expect_near(out.grad_write_bias, grad_bias, exact(), "grad_write_bias");
  }

  void check_controller(const Outputs<S, Y>& out, const Values& state, const Values& grad_pre,
                        Values& of_project) const {
    const auto serial = hyperstreams::testing::serial;
    const Values logits = as_doubles(out.logits), inv_rms = as_doubles(out.inv_rms);
    const Values alpha = as_doubles(alpha_), bias = as_doubles(bias_), phi = as_doubles(phi_);
    const Values norm = as_doubles(norm_), grad_post = as_doubles(grad_post_, n_, false);
    const Values grad_res = as_doubles(grad_res_, n_ * n_, false);
    Values grad_logits(logits.size()), grad_rms(inv_rms.size());
    Values grad_alpha(alpha.size()), grad_bias(bias.size());
    std::vector<double> partials(token_partitions(c_.tokens) * (alpha.size() + bias.size()));
    cpu::coefficients_backward({c_.tokens,
                                DType::kFloat64,
                                c_.settings,
                                {grad_pre.data(), n_},
                                {grad_post.data(), n_},
                                {grad_res.data(), n_ * n_},
                                {logits.data(), logit_count_},
                                {inv_rms.data(), rms_},
                                alpha.data(),
                                bias.data(),
                                grad_logits.data(),
                                grad_rms.data(),
                                grad_alpha.data(),
                                grad_bias.data(),
                                partials.data()},
                               serial);
    expect_near(out.grad_alpha, grad_alpha, kCoefficients, "grad_alpha");
    expect_near(out.grad_bias, grad_bias, kCoefficients, "grad_bias");
    ProjectShape shape = shape_;
    shape.dtype = DType::kFloat64;
    Values workspace(project_backward_workspace(shape));
    Values grad_phi(phi.size()), grad_norm(norm.size());
    cpu::project_backward({shape,
                           {state.data(), shape.features(), c_.width},
                           phi.data(),
                           c_.has_norm ? norm.data() : nullptr,
                           inv_rms.data(),
                           grad_logits.data(),
                           grad_rms.data(),
                           kEps,
                           c_.eps_position,
                           of_project.data(),
                           grad_phi.data(),
                           c_.has_norm ? grad_norm.data() : nullptr,
                           workspace.data()},
                          serial);
    expect_near(out.grad_phi, grad_phi, kCoefficients, "grad_phi");
    if (c_.has_norm) expect_near(out.grad_norm, grad_norm, kCoefficients, "grad_norm");
  }

  // Relative errors: of sums kept in float, of what is rounded to S, of what follows the maps.
  // Op by op, G itself is rounded to S.
  bool one_by_one() const { return n_ > 4; }
  double exact() const { return sizeof(S) == 4 ? 2e-5 : one_by_one() ? 4 * kHalfUlp<S> : 1e-4; }
  double rounded() const { return sizeof(S) == 4 ? 2e-5 : (one_by_one() ? 4 : 1.5) * kHalfUlp<S>; }
  static constexpr double kCoefficients = 2e-4;

  Case c_;
  int n_, rms_;
  int64_t logit_count_;
  ProjectShape shape_;
  Operand<S> x_, grad_;
  Operand<Y> y_;
  Operand<S> grad_u_;
  Operand<float> write_bias_;
  Coefficients h_res_, h_post_, weights_, grad_pre_, grad_post_, grad_res_;
  std::vector<float> phi_, norm_, alpha_, bias_;
};

}  // namespace hyperstreams::cuda::testing
