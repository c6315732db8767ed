// boundary on CUDA, backward. With G the gradient of X', which is never stored,
//
//   grad_h_pre'[t, i] += sum_c grad_u[t, c] X'[t, i, c]; coefficients' adjoint: grad_logits, s, ...
//   G = grad_x' + weights grad_u + grad_logits W + s X'
//   grad_phi = norm_weight sum_t grad_logits X', grad_norm_weight likewise
//   grad_x, grad_y, grad_h_res, grad_h_post, grad_bias: mix_write's adjoint of G
//
// Two kernels over the streams, boundary_dots.cu and boundary_gradients.h, which say who owns what
// and what moves: (n + 2) + (3n + 3) C elements per token, the first n + 2 only where the read's
// weights are the coefficients' own. X' is rebuilt from X and y in both. Between them coefficients'
// adjoint runs, and W comes into fragments (boundary_fragments.cu); after them three small kernels
// add slabs of channels and parts of tokens.
//
// Deterministic: all sums have an order that the shape fixes; partial sums are added in order.
#include <algorithm>

#include "boundary_chain.h"
#include "boundary_fragments.h"
#include "boundary_kernels.h"
#include "boundary_state.h"
#include "boundary_sums.h"
#include "coefficient_maps.h"
#include "column_sums.h"
#include "dispatch.h"
#include "hyperstreams/boundary.h"
#include "map_dispatch.h"
#include "sum_partials.h"

namespace hyperstreams::cuda {
namespace {

/// The launcher's view of one call.
struct Backward {
  const BoundaryBackwardArgs& args;
  MixWriteArgs state;
  StreamsView grad_out;
  void *grad_x, *grad_y;
  BoundaryShape shape;
  BoundaryPlan plan;
  Stream stream;

  explicit Backward(const BoundaryBackwardArgs& a, Stream s) : args(a), stream(s) {
    const ReadBackwardArgs& read = a.read;
    state = without_write(read.tokens, read.n_streams, read.width, read.dtype, read.x);
    grad_out = {nullptr, 0, 0};
    grad_x = read.grad_x;
    grad_y = nullptr;
    if (a.write) {
      const MixWriteBackwardArgs& w = *a.write;
      state = {w.tokens, w.n_streams, w.width,  w.dtype, w.y_dtype, w.x,
               w.y,      w.h_res,     w.h_post, w.bias,  nullptr};
      grad_out = w.grad_out;
      grad_x = w.grad_x;
      grad_y = w.grad_y;
    }
    shape =
        boundary_shape(read.tokens, read.n_streams, read.width, read.dtype,
                       a.coefficients ? &a.coefficients->settings : nullptr, block_shared_limit());
    plan = plan_boundary(shape, alignment());
  }

  int64_t alignment() const {
    const int64_t tokens = state.tokens;
    const int n = state.n_streams;
    const StreamsView out{grad_x, n * state.width, state.width};
    return std::min({row_alignment(state.x, tokens, n, state.dtype),
                     row_alignment(out, tokens, n, state.dtype),
                     row_alignment(grad_out, tokens, n, state.dtype),
                     row_alignment(state.y, tokens, state.y_dtype),
                     row_alignment({grad_y, state.width}, tokens, state.y_dtype),
                     row_alignment({state.bias, 0}, 1, DType::kFloat32),
                     row_alignment(args.read.grad_u, tokens, state.dtype)});
  }

  float* scratch(int64_t at) const { return args.workspace + at; }
  double* doubles(int64_t at) const { return scratch_at<double>(args.workspace, at); }
  bool weights_given() const { return args.read.grad_h_pre != nullptr; }
  bool static_res() const { return state.h_res.data && state.h_res.token_stride == 0; }
  bool static_post() const { return args.write && state.h_post.token_stride == 0; }
  bool static_read() const { return weights_given() && args.read.h_pre.token_stride == 0; }

  Status queue_dots() const {
    return boundary_dots(
        {state, args.read.grad_u, plan.dot_pieces, plan.piece_vectors, scratch(plan.backward.dots)},
        plan, stream);
  }

  Status queue_adjoint() const {
    CoefficientsBackwardArgs c = *args.coefficients;
    c.grad_logits = scratch(plan.backward.grad_logits);
    c.grad_inv_rms = scratch(plan.backward.factors);
    c.partials = doubles(plan.backward.coefficients);
    c.scratch = scratch(plan.backward.map);
    ReadAdjoint read;
    if (!weights_given()) read.dots = scratch(plan.backward.dots);
    read.pieces = plan.dot_pieces;
    read.features = static_cast<float>(args.project->shape.features());
    read.eps = static_cast<float>(args.project->eps);
    read.eps_position = args.project->eps_position;
    return dispatch_map(c.settings.map, [&](auto map) {
      return map_backward<typename decltype(map)::type>(c, read, plan.coefficients, stream);
    });
  }

  Status queue_fragments() const {
    GradientFragmentArgs f = {};
    if (args.project) {
      const ProjectBackwardArgs& p = *args.project;
      const int64_t steps = (p.shape.n_logits + kInnerLogits - 1) / kInnerLogits;
      f.phi = static_cast<const float*>(p.phi);
      f.norm_weight = static_cast<const float*>(p.norm_weight);
      f.streams = p.shape.n_streams;
      f.n_logits = static_cast<int>(p.shape.n_logits);
      f.width = state.width;
      f.count = plan.slabs * kSlabMatrices * f.streams * steps;
      f.weights = scratch_at<uint4>(args.workspace, plan.backward.weights);
      f.grad_logits = scratch(plan.backward.grad_logits);
      f.factor = scratch(plan.backward.factors);
      f.sets = static_cast<int>(plan.per_stream ? state.n_streams : steps);
      f.tiles = static_cast<int>(plan.per_stream ? state.n_streams : (p.shape.n_logits + 7) / 8);
    }
    f.weight_blocks = plan.weight_blocks;
    f.h_res = state.h_res;
    f.h_post = state.h_post;
    f.read_weights = args.read.h_pre;
    f.tokens = state.tokens;
    f.groups = plan.groups;
    f.n = state.n_streams;
    f.pieces = gradient_pieces(state.dtype == DType::kFloat32 ? 4 : 2);
    f.per_stream = plan.per_stream;
    f.out = scratch_at<uint4>(args.workspace, plan.backward.groups);
    f.vectors = plan.group_vectors;
    return gradient_fragments(f, plan.gradient_weights, stream);
  }

  Status queue_gradients() const {
    BoundaryGradientsArgs g = {};
    g.state = state;
    g.grad_out = grad_out;
    g.grad_u = args.read.grad_u;
    g.groups = scratch_at<uint4>(args.workspace, plan.backward.groups);
    g.group_vectors = plan.group_vectors;
    if (args.project) {
      g.weights = scratch_at<uint4>(args.workspace, plan.backward.weights);
      g.n_logits = static_cast<int>(args.project->shape.n_logits);
      g.phi_partials = scratch(plan.backward.phi);
    }
    g.per_stream = plan.per_stream;
    g.grad_x = grad_x;
    g.grad_y = grad_y;
    if (args.write || weights_given()) g.sums = scratch(plan.backward.sums);
    if (state.bias) g.bias_partials = scratch(plan.backward.bias);
    g.tokens_per_part = plan.tokens_per_part;
    return dispatch_dtype(state.dtype, [&](auto dtype) {
      return boundary_gradients<typename decltype(dtype)::type>(g, plan, stream);
    });
  }

  Status queue_token_sums() const {
    BoundarySumsArgs s = {};
    s.sums = scratch(plan.backward.sums);
    s.slabs = plan.slabs;
    s.tokens = state.tokens;
    s.tokens_per_block = plan.tokens_per_sum;
    s.n = state.n_streams;
    if (args.write) {
      if (state.h_res.data && !static_res()) {
        s.grad_h_res = static_cast<float*>(args.write->grad_h_res);
      }
      if (!static_post()) s.grad_h_post = static_cast<float*>(args.write->grad_h_post);
    }
    if (weights_given() && !static_read()) {
      s.grad_read = static_cast<float*>(args.read.grad_h_pre);
    }
    if (static_res() || static_post() || static_read()) s.partials = doubles(plan.backward.tokens);
    return boundary_sums(s, plan.sums, stream);
  }

  /// What is summed over tokens: a second stage each, for any number of parts.
  Status queue_parameter_sums() const {
    const int n = state.n_streams, stride = boundary_sums(n);
    const double* partials = doubles(plan.backward.tokens);
    Status status = Status::kOk;
    const auto add = [&](bool wanted, int first, int count, void* out) {
      if (!wanted || status != Status::kOk) return;
      status = sum_partials(partials + first, plan.sums.grid_x, stride, count, out, stream);
    };
    if (args.write) {
      add(static_res(), 0, n * n, args.write->grad_h_res);
      add(static_post(), n * n, n, args.write->grad_h_post);
    }
    add(static_read(), n * n + n, n, args.read.grad_h_pre);
    if (status == Status::kOk && state.bias) {
      status = add_parts(scratch(plan.backward.bias), plan.token_parts, state.width, state.width,
                         args.write->grad_bias, stream);
    }
    if (status != Status::kOk || !args.project) return status;
    const ProjectBackwardArgs& p = *args.project;
    status = boundary_phi({scratch(plan.backward.phi), static_cast<const float*>(p.phi),
                           static_cast<const float*>(p.norm_weight), plan.token_parts,
                           p.shape.n_logits, p.shape.features(), static_cast<float*>(p.grad_phi),
                           static_cast<float*>(p.grad_norm_weight)},
                          plan.phi, stream);
    if (status != Status::kOk) return status;
    CoefficientsBackwardArgs c = *args.coefficients;
    c.partials = doubles(plan.backward.coefficients);
    return coefficient_parameters(c, plan.coefficients.partials, stream);
  }

  Status queue() const {
    if (!plan.fused) return boundary_chain_backward(args, shape, stream);
    Status status = Status::kOk;
    if (state.tokens > 0) {
      if (args.project) {
        if (!weights_given()) status = queue_dots();
        if (status == Status::kOk) status = queue_adjoint();
      }
      if (status == Status::kOk) status = queue_fragments();
      if (status == Status::kOk) status = queue_gradients();
      if (status == Status::kOk && (args.write || weights_given())) status = queue_token_sums();
    }
    return status == Status::kOk ? queue_parameter_sums() : status;
  }
};

}  // namespace

Status boundary_backward(const BoundaryBackwardArgs& args, Stream stream) {
  const DType y_dtype = args.write ? args.write->y_dtype : args.read.dtype;
  if (!supports_mix_write(args.read.dtype, y_dtype)) return Status::kUnsupportedDType;
  return Backward(args, stream).queue();
}

}  // namespace hyperstreams::cuda
