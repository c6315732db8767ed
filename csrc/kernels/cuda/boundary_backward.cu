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
// adjoint runs, and W comes into fragments; after them three small kernels add slabs of channels
// and parts of tokens.
//
// Deterministic: all sums have an order that the shape fixes; partial sums are added in order.
#include <algorithm>

#include "boundary_chain.h"
#include "boundary_fragments.h"
#include "boundary_kernels.h"
#include "boundary_state.h"
#include "coefficient_maps.h"
#include "column_sums.h"
#include "dispatch.h"
#include "hyperstreams/boundary.h"
#include "map_dispatch.h"
#include "sum_partials.h"

namespace hyperstreams::cuda {
namespace {

constexpr int kThreads = 256;

struct GradientFragmentArgs {
  const float *phi, *norm_weight;
  int64_t n_logits, streams, width, count;  // count: of fragments
  uint4* out;
};

/// A warp makes one fragment of each piece.
__global__ void __launch_bounds__(kThreads)
    gradient_fragments_kernel(const __grid_constant__ GradientFragmentArgs args) {
  const int64_t fragment = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / kWarpThreads;
  if (fragment >= args.count) return;
  const int64_t steps = (args.n_logits + kInnerLogits - 1) / kInnerLogits;
  const int64_t step = fragment % steps, stream = fragment / steps % args.streams;
  const int64_t block = fragment / steps / args.streams;
  const int g = lane() / 4, q = lane() % 4;
  uint32_t word[4][kFloatPieces];
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const int64_t c = block * kWarpChannels + matrix_channel(g, k / 2);
    const int64_t logit = step * kInnerLogits + 2 * q + k % 2 * 8, d = stream * args.width + c;
    float value[2];
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const bool exists = c < args.width && logit + e < args.n_logits;
      value[e] = exists ? args.phi[(logit + e) * args.streams * args.width + d] : 0;
      if (exists && args.norm_weight) value[e] *= args.norm_weight[d];
    }
    split(value[0], value[1], word[k]);
  }
  uint4* out = args.out + gradient_fragment(block, args.streams, stream, steps, step) + lane();
#pragma unroll
  for (int p = 0; p < kFloatPieces; ++p) {
    out[p * kWarpThreads] = {word[0][p], word[1][p], word[2][p], word[3][p]};
  }
}

struct PhiArgs {
  const float* partials;  // [parts, K, D]
  const float *phi, *norm_weight;
  int64_t parts, n_logits, features;
  float *grad_phi, *grad_norm_weight;
};

/// Block: 32 channels x 8 threads, which share the logits of a channel. Parts ascending; the terms
/// of grad_norm_weight by logit, first those of a thread.
__global__ void __launch_bounds__(kThreads) phi_kernel(const __grid_constant__ PhiArgs args) {
  struct Storage {
    float norm[kThreads / kWarpThreads][kWarpThreads];
  };
  auto& storage = shared<Storage>();
  const int64_t d = int64_t{blockIdx.x} * kWarpThreads + threadIdx.x;
  const bool exists = d < args.features;
  float norm = 0;
  for (int64_t k = threadIdx.y; exists && k < args.n_logits; k += kThreads / kWarpThreads) {
    const int64_t place = k * args.features + d;
    float sum = 0;
    for (int64_t part = 0; part < args.parts; ++part) {
      sum += args.partials[part * args.n_logits * args.features + place];
    }
    norm = fmaf(sum, args.phi[place], norm);
    args.grad_phi[place] = args.norm_weight ? sum * args.norm_weight[d] : sum;
  }
  if (!args.norm_weight) return;
  storage.norm[threadIdx.y][threadIdx.x] = norm;
  block_barrier();
  if (threadIdx.y > 0 || !exists) return;
  for (int y = 1; y < kThreads / kWarpThreads; ++y) norm += storage.norm[y][threadIdx.x];
  args.grad_norm_weight[d] = norm;
}

struct SumsArgs {
  const float* sums;  // [slabs, tokens, boundary_sums(n)]
  int64_t slabs, tokens, tokens_per_block;
  int n;
  // Out per token [tokens, n n], [tokens, n], [tokens, n]; null where unwanted or static.
  float *grad_h_res, *grad_h_post, *grad_read;
  double* partials;  // out [blocks, boundary_sums(n)]: sums over the block's tokens
};

static_assert(boundary_sums(4) <= kWarpThreads, "a lane for each sum");

/// A warp takes a token, a lane a sum: slabs in ascending order, then tokens.
__global__ void __launch_bounds__(kThreads) sums_kernel(const __grid_constant__ SumsArgs args) {
  constexpr int kWarps = kThreads / kWarpThreads;
  struct Storage {
    double sum[kWarps][kWarpThreads];
  };
  auto& storage = shared<Storage>();
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int n = args.n, count = n * n + 2 * n, k = lane();
  const int64_t begin = blockIdx.x * args.tokens_per_block;
  const int64_t end =
      begin + args.tokens_per_block < args.tokens ? begin + args.tokens_per_block : args.tokens;
  double of_tokens = 0;
  for (int64_t t = begin + warp; t < end && k < count; t += kWarps) {
    float sum = args.sums[t * count + k];
    for (int64_t slab = 1; slab < args.slabs; ++slab) {
      sum += args.sums[(slab * args.tokens + t) * count + k];
    }
    of_tokens += sum;
    if (k < n * n) {
      if (args.grad_h_res) args.grad_h_res[t * n * n + k] = sum;
    } else if (k < n * n + n) {
      if (args.grad_h_post) args.grad_h_post[t * n + k - n * n] = sum;
    } else if (args.grad_read) {
      args.grad_read[t * n + k - n * n - n] = sum;
    }
  }
  storage.sum[warp][k] = of_tokens;
  block_barrier();
  if (warp > 0 || k >= count) return;
  for (int w = 1; w < kWarps; ++w) of_tokens += storage.sum[w][k];
  args.partials[blockIdx.x * count + k] = of_tokens;
}

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
    shape = boundary_shape(read.tokens, read.n_streams, read.width, read.dtype,
                           a.coefficients ? &a.coefficients->settings : nullptr);
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
    const ProjectBackwardArgs& p = *args.project;
    const int64_t streams = p.shape.n_streams, steps = (p.shape.n_logits + 15) / 16;
    const int64_t blocks = plan.slabs * kSlabWarps;
    return launch(gradient_fragments_kernel, plan.gradient_weights, stream,
                  GradientFragmentArgs{static_cast<const float*>(p.phi),
                                       static_cast<const float*>(p.norm_weight), p.shape.n_logits,
                                       streams, state.width, blocks * streams * steps,
                                       scratch_at<uint4>(args.workspace, plan.backward.weights)});
  }

  Status queue_gradients() const {
    BoundaryGradientsArgs g = {};
    g.state = state;
    g.grad_out = grad_out;
    g.grad_u = args.read.grad_u;
    g.read_weights = args.read.h_pre;
    if (args.project) {
      g.weights = scratch_at<uint4>(args.workspace, plan.backward.weights);
      g.grad_logits = scratch(plan.backward.grad_logits);
      g.factor = scratch(plan.backward.factors);
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
    SumsArgs s = {};
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
    s.partials = doubles(plan.backward.tokens);
    return launch(sums_kernel, plan.sums, stream, s);
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
    status = launch(phi_kernel, plan.phi, stream,
                    PhiArgs{scratch(plan.backward.phi), static_cast<const float*>(p.phi),
                            static_cast<const float*>(p.norm_weight), plan.token_parts,
                            p.shape.n_logits, p.shape.features(), static_cast<float*>(p.grad_phi),
                            static_cast<float*>(p.grad_norm_weight)});
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
        if (status == Status::kOk) status = queue_fragments();
      }
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
