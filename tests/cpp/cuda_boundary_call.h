// A call of boundary for the tests of its CUDA kernels: operands and results.
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

/// Random operands of a case, and the kernels on them.
template <class S, class Y>
class BoundaryCall {
 public:
  explicit BoundaryCall(const Case& c)
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
    const BoundaryPlan plan =
        plan_boundary(boundary_shape(c_.tokens, n_, c_.width, kDType<S>,
                                     next ? &c_.settings : nullptr, block_shared_limit()),
                      2);
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

 protected:
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
