// What a call of boundary must return: the forward by the CUDA ops one by one, the backward by the
// CPU's in double, both on X' as the forward stored it.
#pragma once

#include "cuda_boundary_call.h"

namespace hyperstreams::cuda::testing {

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

/// A call and the judgement of its results.
template <class S, class Y>
class Problem : public BoundaryCall<S, Y> {
  using Call = BoundaryCall<S, Y>;

 public:
  using Call::Call;

  void check(const Outputs<S, Y>& out) const {
    const std::vector<S> state = stored_state(out);
    check_forward(out, state);
    check_backward(out, Values(as_doubles(state)));
  }

 private:
  using Call::alpha_;
  using Call::bias_;
  using Call::c_;
  using Call::grad_;
  using Call::grad_post_;
  using Call::grad_pre_;
  using Call::grad_res_;
  using Call::grad_u_;
  using Call::h_post_;
  using Call::h_res_;
  using Call::has_bias;
  using Call::logit_count_;
  using Call::n_;
  using Call::norm_;
  using Call::phi_;
  using Call::rms_;
  using Call::shape_;
  using Call::weights_;
  using Call::write_args;
  using Call::write_bias_;
  using Call::x_;
  using Call::y_;

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
  bool one_by_one() const {
    const CoefficientSettings* next = c_.has_controller ? &c_.settings : nullptr;
    const int limit = block_shared_limit();
    return !plan_boundary(boundary_shape(c_.tokens, n_, c_.width, kDType<S>, next, limit), 1).fused;
  }
  double exact() const { return sizeof(S) == 4 ? 2e-5 : one_by_one() ? 4 * kHalfUlp<S> : 1e-4; }
  double rounded() const { return sizeof(S) == 4 ? 2e-5 : (one_by_one() ? 4 : 1.5) * kHalfUlp<S>; }
  static constexpr double kCoefficients = 2e-4;
};

}  // namespace hyperstreams::cuda::testing
