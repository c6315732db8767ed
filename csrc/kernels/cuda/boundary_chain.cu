// boundary on CUDA op by op: mix_write, project, coefficients, read, and their adjoints.
//
// Forward: (4n + 2) C elements per token. Backward: X' is rebuilt, G is kept in the streams' dtype:
//
//   G = grad_x' + weights grad_u + project's grad_x, rounded
//
// by one kernel, a thread per vector of channels and token, n streams each: (3n + 1) C elements, of
// (12n + 5) C in all. Deterministic, as the ops are; X' has the bits of mix_write.
#include "boundary_chain.h"

#include <algorithm>

#include "boundary_kernels.h"
#include "device/device.h"
#include "dispatch.h"
#include "vector_threads.h"

namespace hyperstreams::cuda {
namespace {

struct GradientSumArgs {
  int64_t tokens;
  int n_streams;
  int64_t width;
  StreamsView grad_out;  // grad_x' or none
  RowsView grad_u, read_weights;
  bool has_product;  // whether grad holds project's grad_x
  void* grad;        // in and out [tokens, n, C]
};

/// G in place of project's grad_x.
template <class S, bool kWhole>
__global__ void __launch_bounds__(kVectorThreads) gradient_sum_kernel(const GradientSumArgs args) {
  constexpr int kVector = Vector<S>::kSize;
  const VectorThread thread(kVector);
  if (thread.c >= args.width) return;
  const int64_t count = args.width - thread.c;
  for (int64_t t = thread.t; t < args.tokens; t += thread.token_step) {
    const S* beside = static_cast<const S*>(args.grad_out.data);
    const S* grad_u = static_cast<const S*>(args.grad_u.data) + t * args.grad_u.token_stride;
    const float* weights =
        static_cast<const float*>(args.read_weights.data) + t * args.read_weights.token_stride;
    float of_u[kVector];
    load_floats<kWhole>(grad_u + thread.c, count, of_u);
    for (int j = 0; j < args.n_streams; ++j) {
      S* grad = static_cast<S*>(args.grad) + (t * args.n_streams + j) * args.width + thread.c;
      float sum[kVector] = {}, product[kVector] = {};
      if (beside) {
        load_floats<kWhole>(
            beside + t * args.grad_out.token_stride + j * args.grad_out.stream_stride + thread.c,
            count, sum);
      }
      if (args.has_product) load_floats<kWhole>(grad, count, product);
      const float weight = weights[j];
#pragma unroll
      for (int k = 0; k < kVector; ++k) sum[k] = fmaf(weight, of_u[k], sum[k]) + product[k];
      store_floats<kWhole>(grad, count, sum);
    }
  }
}

/// grad += beside.
__global__ void __launch_bounds__(kVectorThreads)
    add_rows_kernel(const RowsView beside, int64_t tokens, int n, float* grad) {
  const int64_t k = int64_t{blockIdx.x} * kVectorThreads + threadIdx.x, t = k / n;
  if (t >= tokens) return;
  grad[k] += static_cast<const float*>(beside.data)[t * beside.token_stride + k % n];
}

Status queue_gradient_sum(const GradientSumArgs& args, DType dtype, Stream stream) {
  const StreamsView grad{args.grad, args.n_streams * args.width, args.width};
  const int64_t alignment =
      std::min({row_alignment(args.grad_out, args.tokens, args.n_streams, dtype),
                row_alignment(args.grad_u, args.tokens, dtype),
                row_alignment(grad, args.tokens, args.n_streams, dtype)});
  const ReadPlan plan = plan_read(args.tokens, args.width, dtype, alignment, false);
  return dispatch_dtype(dtype, [&](auto type) {
    return dispatch_bool(plan.whole_vectors, [&](auto whole) {
      return launch(gradient_sum_kernel<typename decltype(type)::type, decltype(whole)::value>,
                    plan.forward, stream, args);
    });
  });
}

/// Runs the steps until one fails.
template <class... Steps>
Status in_order(const Steps&... steps) {
  Status status = Status::kOk;
  const auto run = [&](const auto& step) {
    if (status == Status::kOk) status = step();
  };
  (run(steps), ...);
  return status;
}

}  // namespace

Status boundary_chain_forward(const BoundaryArgs& args, const BoundaryShape& shape, Stream stream) {
  const BoundaryChainScratch scratch = plan_boundary_chain(shape, false);
  return in_order([&] { return args.write ? mix_write_forward(*args.write, stream) : Status::kOk; },
                  [&] {
                    if (!args.project) return Status::kOk;
                    ProjectArgs project = *args.project;
                    project.workspace = args.workspace + scratch.project;
                    return project_forward(project, stream);
                  },
                  [&] {
                    if (!args.coefficients) return Status::kOk;
                    CoefficientsArgs coefficients = *args.coefficients;
                    coefficients.scratch = args.workspace + scratch.map;
                    return coefficients_forward(coefficients, stream);
                  },
                  [&] { return read_forward(args.read, stream); });
}

Status boundary_chain_backward(const BoundaryBackwardArgs& args, const BoundaryShape& shape,
                               Stream stream) {
  const BoundaryChainScratch scratch = plan_boundary_chain(shape, true);
  const auto floats = [&](int64_t at) { return args.workspace + at; };
  const auto doubles = [&](int64_t at) { return scratch_at<double>(args.workspace, at); };
  const ReadBackwardArgs& read = args.read;
  const int n = read.n_streams;
  const int64_t width = read.width;
  const bool weights_given = read.grad_h_pre != nullptr;
  StreamsView state = read.x;
  if (args.write) state = {floats(scratch.state), n * width, width};
  void* gradient = args.write ? floats(scratch.gradient) : read.grad_x;
  return in_order(
      [&] {
        if (!args.write) return Status::kOk;
        const MixWriteBackwardArgs& w = *args.write;
        return mix_write_forward({w.tokens, w.n_streams, w.width, w.dtype, w.y_dtype, w.x, w.y,
                                  w.h_res, w.h_post, w.bias, floats(scratch.state)},
                                 stream);
      },
      [&] {
        // Its grad_x is part of G, which is computed with less rounding below.
        ReadBackwardArgs of_read = read;
        of_read.x = state;
        of_read.grad_x = gradient;
        if (!weights_given) of_read.grad_h_pre = floats(scratch.grad_pre);
        of_read.partials = doubles(scratch.read);
        return read_backward(of_read, stream);
      },
      [&] {
        if (!args.coefficients) return Status::kOk;
        CoefficientsBackwardArgs c = *args.coefficients;
        if (!weights_given && read.tokens > 0) {
          const LaunchShape one_each{(read.tokens * n + kVectorThreads - 1) / kVectorThreads, 1,
                                     kVectorThreads, 1};
          const Status status = launch(add_rows_kernel, one_each, stream, c.grad_h_pre, read.tokens,
                                       n, floats(scratch.grad_pre));
          if (status != Status::kOk) return status;
          c.grad_h_pre = {floats(scratch.grad_pre), n};
        }
        c.grad_logits = floats(scratch.grad_logits);
        c.grad_inv_rms = floats(scratch.grad_rms);
        c.partials = doubles(scratch.coefficients);
        c.scratch = floats(scratch.map);
        return coefficients_backward(c, stream);
      },
      [&] {
        if (!args.project) return Status::kOk;
        ProjectBackwardArgs p = *args.project;
        p.x = shape.per_stream ? StreamsView{state.data, width, width} : state;
        p.grad_logits = floats(scratch.grad_logits);
        p.grad_inv_rms = floats(scratch.grad_rms);
        p.grad_x = gradient;
        p.workspace = floats(scratch.project);
        return project_backward(p, stream);
      },
      [&] {
        if (read.tokens == 0) return Status::kOk;
        const StreamsView none{nullptr, 0, 0};
        return queue_gradient_sum({read.tokens, n, width, args.write ? args.write->grad_out : none,
                                   read.grad_u, read.h_pre, args.project != nullptr, gradient},
                                  read.dtype, stream);
      },
      [&] {
        if (!args.write) return Status::kOk;
        MixWriteBackwardArgs w = *args.write;
        w.grad_out = {gradient, n * width, width};
        w.partials = doubles(scratch.write);
        w.bias_partials = floats(scratch.bias);
        return mix_write_backward(w, stream);
      });
}

}  // namespace hyperstreams::cuda
