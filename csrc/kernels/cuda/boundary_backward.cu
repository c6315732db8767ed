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
constexpr int kPhiThreads = 1024;

struct GradientFragmentArgs {
  const float *phi, *norm_weight;
  int64_t streams, width, count;  // of phi; count: of fragments
  uint4* weights;                 // out
  int64_t weight_blocks;          // of the grid; the others take groups
  // Null data: none. Of a write, and of the read.
  RowsView h_res, h_post, read_weights;
  const float *grad_logits, *factor;  // [rows, K], [rows]
  int64_t tokens, groups;
  int n, n_logits, pieces, sets, tiles;
  bool per_stream;
  uint4* out;  // [groups, vectors]
  int vectors;
};

/// A warp makes one fragment of W, of each piece.
__device__ __forceinline__ void weight_fragment_of(const GradientFragmentArgs& args) {
  const int64_t fragment = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / kWarpThreads;
  if (fragment >= args.count) return;
  const int64_t steps = (args.n_logits + kInnerLogits - 1) / kInnerLogits;
  const int64_t step = fragment % steps, stream = fragment / steps % args.streams;
  const int64_t block = fragment / steps / args.streams;
  const int g = lane() / 4, q = lane() % 4;
  uint32_t word[4][kFloatPieces];
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const int64_t c = block * kMatrixSize + matrix_channel(g, k / 2);
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
  uint4* out = args.weights + gradient_fragment(block, args.streams, stream, steps, step) + lane();
#pragma unroll
  for (int p = 0; p < kFloatPieces; ++p) {
    out[p * kWarpThreads] = {word[0][p], word[1][p], word[2][p], word[3][p]};
  }
}

/// One of the numbers that G takes beside grad_logits: `k` of [h_res[j, :], h_post[j], weight[j],
/// factor[j]]; 0 for a token that does not exist.
__device__ __forceinline__ float group_number(const GradientFragmentArgs& args, int64_t t, int j,
                                              int k) {
  if (t >= args.tokens) return 0;
  const int n = args.n;
  const auto at = [&](const RowsView& rows, int place) {
    return rows.data ? static_cast<const float*>(rows.data)[t * rows.token_stride + place] : 0;
  };
  if (k < n) return at(args.h_res, j * n + k);
  if (k == n) return at(args.h_post, j);
  if (k == n + 1) return at(args.read_weights, j);
  if (k > n + 2 || !args.factor) return 0;
  return args.factor[args.per_stream ? t * n + j : t];
}

/// A thread makes one vector of a group.
__device__ __forceinline__ void group_vector_of(const GradientFragmentArgs& args) {
  const int64_t rank =
      (int64_t{blockIdx.x} - args.weight_blocks) * kThreads + static_cast<int>(threadIdx.x);
  const int64_t first = rank / args.vectors * kMatrixSize;
  if (rank / args.vectors >= args.groups) return;
  int place = static_cast<int>(rank % args.vectors);
  uint32_t word[4];
  const int row_floats = args.n == 1 ? 4 : 8, rows = kMatrixSize * args.n * row_floats / 4;
  if (place < rows) {
    const int number = place * 4 % row_floats, row = place * 4 / row_floats;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      word[k] = bits_from_float(group_number(args, first + row / args.n, row % args.n, number + k));
    }
    args.out[rank] = {word[0], word[1], word[2], word[3]};
    return;
  }
  place -= rows;
  const auto grad_logit = [&](int token, int logit, int stream) -> float {
    const int64_t t = first + token;
    if (t >= args.tokens || logit >= args.n_logits) return 0;
    return args.grad_logits[(args.per_stream ? t * args.n + stream : t) * args.n_logits + logit];
  };
  const bool by_set = place < args.sets * args.pieces * kWarpThreads;
  if (!by_set) place -= args.sets * args.pieces * kWarpThreads;
  const int vectors = by_set ? kWarpThreads : kWarpThreads / 2;
  const int piece = place / vectors % args.pieces, set = place / vectors / args.pieces;
  const int begin = args.per_stream ? 0 : set, stream = args.per_stream ? set : 0;
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    uint32_t pair[kFloatPieces];
    if (by_set) {
      const int g = place % vectors / 4, q = place % 4;
      const int token = g + k % 2 * 8, logit = begin * kInnerLogits + 2 * q + k / 2 * 8;
      split(grad_logit(token, logit, stream), grad_logit(token, logit + 1, stream), pair);
    } else {  // lanes 2 place and 2 place + 1
      const int to = place % vectors * 2 + k / 2, g = to / 4, q = to % 4;
      const int token = 2 * q + k % 2 * 8, logit = begin * 8 + g;
      split(grad_logit(token, logit, stream), grad_logit(token + 1, logit, stream), pair);
    }
    word[k] = piece == 0 ? pair[0] : piece == 1 ? pair[1] : pair[2];
  }
  args.out[rank] = {word[0], word[1], word[2], word[3]};
}

/// What boundary_gradients.h finds ready: W, and the groups of 16 tokens.
__global__ void __launch_bounds__(kThreads)
    gradient_fragments_kernel(const __grid_constant__ GradientFragmentArgs args) {
  if (blockIdx.x < args.weight_blocks) {
    weight_fragment_of(args);
  } else {
    group_vector_of(args);
  }
}

struct PhiArgs {
  const float* partials;  // [parts, K, D]
  const float *phi, *norm_weight;
  int64_t parts, n_logits, features;
  float *grad_phi, *grad_norm_weight;
};

/// Block: 32 channels x a thread for every logit. Parts ascending; then, for grad_norm_weight,
/// logits.
__global__ void __launch_bounds__(kPhiThreads) phi_kernel(const __grid_constant__ PhiArgs args) {
  constexpr int kAtOnce = 8;  // loads under way
  struct Storage {
    float norm[kPhiThreads / kWarpThreads][kWarpThreads];
  };
  auto& storage = shared<Storage>();
  const int64_t d = int64_t{blockIdx.x} * kWarpThreads + threadIdx.x, k = threadIdx.y;
  const int64_t place = k * args.features + d, count = args.n_logits * args.features;
  if (d < args.features) {
    float sum = 0;
    for (int64_t part = 0; part < args.parts; part += kAtOnce) {
      float value[kAtOnce];
#pragma unroll
      for (int p = 0; p < kAtOnce; ++p) {
        value[p] = part + p < args.parts ? args.partials[(part + p) * count + place] : 0;
      }
#pragma unroll
      for (int p = 0; p < kAtOnce; ++p) sum += value[p];
    }
    storage.norm[k][threadIdx.x] = sum * args.phi[place];
    args.grad_phi[place] = args.norm_weight ? sum * args.norm_weight[d] : sum;
  }
  if (!args.norm_weight) return;
  block_barrier();
  if (k > 0 || d >= args.features) return;
  float norm = storage.norm[0][threadIdx.x];
  for (int y = 1; y < args.n_logits; ++y) norm += storage.norm[y][threadIdx.x];
  args.grad_norm_weight[d] = norm;
}

struct SumsArgs {
  const float* sums;  // [slabs, tokens, n, n + 2]: of h_res[j, :], h_post[j], weight[j]
  int64_t slabs, tokens, tokens_per_block;
  int n;
  // Out per token [tokens, n n], [tokens, n], [tokens, n]; null where unwanted or static.
  float *grad_h_res, *grad_h_post, *grad_read;
  double* partials;  // out [blocks, boundary_sums(n)]: sums over the block's tokens, by gradient
};

static_assert(boundary_sums(4) <= kWarpThreads, "a lane for each sum");

/// A warp takes a token, a lane a sum: slabs in ascending order, then tokens.
__global__ void __launch_bounds__(kThreads) sums_kernel(const __grid_constant__ SumsArgs args) {
  constexpr int kWarps = kThreads / kWarpThreads;
  constexpr int kAtOnce = 8;  // loads under way
  struct Storage {
    double sum[kWarps][kWarpThreads];
  };
  auto& storage = shared<Storage>();
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int n = args.n, count = n * n + 2 * n, k = lane();
  const int j = k / (n + 2), i = k % (n + 2);
  const int64_t begin = blockIdx.x * args.tokens_per_block;
  const int64_t end =
      begin + args.tokens_per_block < args.tokens ? begin + args.tokens_per_block : args.tokens;
  double of_tokens = 0;
  for (int64_t t = begin + warp; t < end && k < count; t += kWarps) {
    float sum = 0;
    for (int64_t slab = 0; slab < args.slabs; slab += kAtOnce) {
      float value[kAtOnce];
#pragma unroll
      for (int s = 0; s < kAtOnce; ++s) {
        value[s] =
            slab + s < args.slabs ? args.sums[((slab + s) * args.tokens + t) * count + k] : 0;
      }
#pragma unroll
      for (int s = 0; s < kAtOnce; ++s) sum += value[s];
    }
    of_tokens += sum;
    if (i < n) {
      if (args.grad_h_res) args.grad_h_res[(t * n + j) * n + i] = sum;
    } else if (i == n) {
      if (args.grad_h_post) args.grad_h_post[t * n + j] = sum;
    } else if (args.grad_read) {
      args.grad_read[t * n + j] = sum;
    }
  }
  storage.sum[warp][k] = of_tokens;
  block_barrier();
  if (warp > 0 || k >= count) return;
  for (int w = 1; w < kWarps; ++w) of_tokens += storage.sum[w][k];
  const int place = i < n ? j * n + i : n * n + (i - n) * n + j;
  args.partials[blockIdx.x * count + place] = of_tokens;
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
    return launch(gradient_fragments_kernel, plan.gradient_weights, stream, f);
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
