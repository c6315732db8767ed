// boundary on the CPU, backward. A task owns a partition of tokens and walks it in tiles; per tile,
// all in the second-level cache:
//
//   1. X' from X and y, by mix_write's own code;
//   2. G = grad_x' + weights grad_u, and the weights' gradient grad_u . X';
//   3. the adjoint of the coefficients: grad_logits and grad_inv_rms of the tile;
//   4. G += grad_logits W + s X' and this partition's share of grad_phi, block by block of
//   channels;
//   5. mix_write's backward with grad_out = G; without a write, G is rounded to grad_x.
#include <optional>

#include "boundary_tile.h"
#include "coefficient_adjoint.h"
#include "hyperstreams/boundary.h"
#include "project_backward_block.h"
#include "rows.h"
#include "token_ranges.h"

namespace hyperstreams::cpu {
namespace HYPERSTREAMS_ISA_NAMESPACE {
namespace {

/// Step 2 for one tile.
template <class S>
struct ReadAdjoint {
  using T = accumulate_t<S>;
  int n;
  int64_t width;
  StreamsView state;   // X'
  StreamsView beside;  // grad_x', or null data
  RowsView weights, grad_u;
  T* gradient;  // G [tokens, n, padded width]
  int64_t padded;
  T* grad_weights;  // [tokens, n]
};

template <class S, int kN>
void read_adjoint_token(const ReadAdjoint<S>& a, int64_t t) {
  using T = accumulate_t<S>;
  using lanes_t = Lanes<T>;
  const int n = kN ? kN : a.n;
  const S* state = static_cast<const S*>(a.state.data) + t * a.state.token_stride;
  const S* beside =
      a.beside.data ? static_cast<const S*>(a.beside.data) + t * a.beside.token_stride : nullptr;
  const T* weights = static_cast<const T*>(a.weights.data) + t * a.weights.token_stride;
  const S* grad_u = static_cast<const S*>(a.grad_u.data) + t * a.grad_u.token_stride;
  T* out = a.gradient + t * n * a.padded;
  lanes_t dot[kN ? kN : kMaxStreams];
  for (int i = 0; i < n; ++i) dot[i] = lanes_t::set(0);
  const auto group = [&](int64_t c, const auto& load) {
    const lanes_t g = load(grad_u + c);
    for (int i = 0; i < n; ++i) {
      dot[i] = fma(g, load(state + i * a.state.stream_stride + c), dot[i]);
      const lanes_t weight = lanes_t::set(weights[i]);
      const lanes_t sum =
          beside ? fma(weight, g, load(beside + i * a.beside.stream_stride + c)) : weight * g;
      sum.store(out + i * a.padded + c);  // rows are padded to whole lanes
    }
  };
  for_channels<T>(
      a.width, [&](int64_t c) { group(c, [](const S* row) { return lanes_t::load(row); }); },
      [&](int64_t c, int64_t count) {
        group(c, [count](const S* row) { return load_partial(row, count); });
      });
  for (int i = 0; i < n; ++i) a.grad_weights[t * n + i] = dot[i].sum();
}

template <class S>
void read_adjoint(const ReadAdjoint<S>& adjoint, int64_t tokens) {
  dispatch_streams<S>(adjoint.n, [&](auto streams) {
    for (int64_t t = 0; t < tokens; ++t) {
      read_adjoint_token<S, decltype(streams)::value>(adjoint, t);
    }
  });
}

/// What does not depend on the tile.
template <class S>
struct BackwardPlan {
  using T = accumulate_t<S>;
  const BoundaryBackwardArgs& args;
  int n;
  int64_t tokens, width, padded, rows, parts;
  std::optional<CoefficientPlan<T>> coefficients;
  std::optional<ProjectBackwardPlan<T>> project;

  BackwardPlan(const BoundaryBackwardArgs& a, ParallelFor parallel_for)
      : args(a),
        n(a.read.n_streams),
        tokens(a.read.tokens),
        width(a.read.width),
        padded((width + kProjectBlock - 1) / kProjectBlock * kProjectBlock),
        rows(boundary_tile_rows(n * padded * static_cast<int64_t>(sizeof(T) + sizeof(S)))),
        parts(boundary_partitions(a.project ? &a.project->shape : nullptr, tokens, width)) {
    if (!a.project) return;
    project = project_backward_prepare<T>(*a.project, parallel_for);
    const CoefficientsBackwardArgs& c = *a.coefficients;
    coefficients.emplace(c.settings, c.alpha, c.bias);
  }

  int sums() const { return coefficients->groups + coefficients->logits; }
};

/// The scratch of a thread and its walk over a partition.
template <class S>
class BackwardTask {
 public:
  using T = accumulate_t<S>;

  explicit BackwardTask(const BackwardPlan<S>& plan)
      : plan_(plan),
        args_(plan.args),
        state_(args_.write ? plan.rows * plan.n * plan.width : 0),
        gradient_(plan.rows * plan.n * plan.padded),
        grad_weights_(plan.rows * plan.n),
        grad_logits_(plan.coefficients ? plan.rows * plan.coefficients->logits : 0),
        grad_inv_rms_(plan.coefficients ? plan.rows * plan.coefficients->rms : 0) {
    if (plan.coefficients) adjoint_.emplace(*plan.coefficients);
  }

  void partition(int64_t part) {
    MixWriteSums sums = {nullptr, nullptr, nullptr};
    if (args_.write) sums = mix_write_clear_sums(*args_.write, part);
    double* weight_sums = nullptr;  // of static given weights
    if (args_.read.grad_h_pre && args_.read.h_pre.token_stride == 0) {
      weight_sums = args_.read.partials + part * plan_.n;
      zero_row(plan_.n, weight_sums);
    }
    if (plan_.project) zero_row(plan_.project->size, plan_.project->partial(part));
    const int64_t last = partition_begin(plan_.tokens, plan_.parts, part + 1);
    for (int64_t t = partition_begin(plan_.tokens, plan_.parts, part); t < last; t += plan_.rows) {
      tile(t, last - t < plan_.rows ? last - t : plan_.rows, part, sums, weight_sums);
    }
    if (adjoint_) {
      double* partial = args_.coefficients->partials + part * plan_.sums();
      zero_row(plan_.sums(), partial);
      adjoint_->flush(partial);
    }
  }

 private:
  void tile(int64_t first, int64_t tokens, int64_t part, const MixWriteSums& sums,
            double* weight_sums) {
    const StreamsView state = rebuild_state(first, tokens);
    const int n = plan_.n;
    ReadAdjoint<S> read = {n,
                           plan_.width,
                           state,
                           {nullptr, 0, 0},
                           view_from(args_.read.h_pre, first, sizeof(T)),
                           view_from(args_.read.grad_u, first, sizeof(S)),
                           gradient_.data(),
                           plan_.padded,
                           grad_weights_.data()};
    if (args_.write) read.beside = view_from(args_.write->grad_out, first, sizeof(S));
    read_adjoint(read, tokens);
    if (weight_sums) {
      for (int64_t t = 0; t < tokens; ++t) add_row(grad_weights_.data() + t * n, n, weight_sums);
    } else if (T* out = rows_from<T>(args_.read.grad_h_pre, first, n)) {
      std::memcpy(out, grad_weights_.data(), sizeof(T) * static_cast<size_t>(tokens * n));
    }
    if (plan_.project) {
      coefficients_adjoint(first, tokens);
      products(first, tokens, part, state);
    }
    if (args_.write) {
      write_adjoint(first, tokens, sums);
    } else {
      round_gradient(first, tokens);
    }
  }

  /// Step 1: X' of the tile.
  StreamsView rebuild_state(int64_t first, int64_t tokens) {
    if (!args_.write) return view_from(args_.read.x, first, sizeof(S));
    const MixWriteBackwardArgs& w = *args_.write;
    mix_write_tokens(
        {tokens, w.n_streams, w.width, w.dtype, w.y_dtype, view_from(w.x, first, sizeof(S)),
         view_from(w.y, first, size_of(w.y_dtype)), view_from(w.h_res, first, sizeof(T)),
         view_from(w.h_post, first, sizeof(T)), w.bias, state_.data()},
        0, tokens);
    return {state_.data(), plan_.n * plan_.width, plan_.width};
  }

  /// Step 3.
  void coefficients_adjoint(int64_t first, int64_t tokens) {
    const int n = plan_.n, rms = plan_.coefficients->rms;
    CoefficientsBackwardArgs c = *args_.coefficients;
    if (!args_.read.grad_h_pre) {  // the weights were the coefficients' own
      const T* beside = static_cast<const T*>(c.grad_h_pre.data);
      for (int64_t t = 0; t < tokens; ++t) {
        add_row(beside + (first + t) * c.grad_h_pre.token_stride, n, grad_weights_.data() + t * n);
      }
      c.grad_h_pre = {grad_weights_.data(), n};
    } else {
      c.grad_h_pre = view_from(c.grad_h_pre, first, sizeof(T));
    }
    c.tokens = tokens;
    c.grad_h_post = view_from(c.grad_h_post, first, sizeof(T));
    c.grad_h_res = view_from(c.grad_h_res, first, sizeof(T));
    c.logits = view_from(c.logits, first, sizeof(T));
    c.inv_rms = view_from(c.inv_rms, first, sizeof(T));
    c.grad_logits = grad_logits_.data();
    c.grad_inv_rms = grad_inv_rms_.data();
    coefficients_adjoint_tokens(c, *adjoint_, 0, tokens);
    const ProjectBackwardArgs& p = *args_.project;
    for (int64_t r = 0; r < tokens * rms; ++r) {
      grad_inv_rms_.data()[r] = project_statistic_factor(
          p.shape, p.eps, p.eps_position, static_cast<const T*>(p.inv_rms)[first * rms + r],
          grad_inv_rms_.data()[r]);
    }
  }

  /// Step 4. Per stream, a stream is a token of project.
  void products(int64_t first, int64_t tokens, int64_t part, const StreamsView& state) {
    const ProjectShape& shape = args_.project->shape;
    const int64_t per_token = plan_.coefficients->rms, streams = shape.n_streams;
    Ahead next = next_tile(first + tokens);
    const StreamsView x = {state.data, per_token > 1 ? state.stream_stride : state.token_stride,
                           state.stream_stride};
    for (int64_t r = 0; r < tokens * per_token; r += kProjectRows) {
      const int64_t left = tokens * per_token - r;
      ProjectBackwardBlock<T> block = {};
      block.tokens = left < kProjectRows ? left : kProjectRows;
      block.factor = grad_inv_rms_.data() + r;
      block.grad_logits = grad_logits_.data() + r * shape.n_logits;
      block.partial = plan_.project->partial(part);
      block.grad_stride = streams * plan_.padded;
      block.add = true;
      block.ahead = &next;
      const StreamsView rows = view_from(x, r, sizeof(S));
      for (block.i = 0; block.i < streams; ++block.i) {
        for (block.c = 0; block.c < plan_.width; block.c += kProjectBlock) {
          block.grad = gradient_.data() + (r * streams + block.i) * plan_.padded + block.c;
          project_backward_block<S>(shape, *plan_.project, rows, block);
        }
      }
    }
  }

  /// What the tile from token `first` on will touch.
  Ahead next_tile(int64_t first) const {
    Ahead next;
    const int64_t left = plan_.tokens - first, tokens = left < plan_.rows ? left : plan_.rows;
    if (!args_.write || tokens <= 0) return next;
    const MixWriteBackwardArgs& w = *args_.write;
    const int64_t n = plan_.n, width = plan_.width;
    add_rows(w.x, first, tokens, n, width, w.dtype, &next);
    add_rows(w.y, first, tokens, width, w.y_dtype, &next);
    add_rows(w.grad_out, first, tokens, n, width, w.dtype, &next);
    add_rows({w.grad_x, n * width, width}, first, tokens, n, width, w.dtype, &next);
    return next;
  }

  /// Step 5.
  void write_adjoint(int64_t first, int64_t tokens, const MixWriteSums& sums) {
    const int64_t n = plan_.n, width = plan_.width;
    MixWriteBackwardArgs w = *args_.write;
    w.tokens = tokens;
    w.grad_out = {gradient_.data(), n * plan_.padded, plan_.padded};
    w.x = view_from(w.x, first, sizeof(S));
    w.y = view_from(w.y, first, size_of(w.y_dtype));
    w.h_res = view_from(w.h_res, first, sizeof(T));
    w.h_post = view_from(w.h_post, first, sizeof(T));
    w.grad_x = rows_from<S>(w.grad_x, first, n * width);
    w.grad_y = rows_from<char>(w.grad_y, first, width * size_of(w.y_dtype));
    if (!sums.h_res) w.grad_h_res = rows_from<T>(w.grad_h_res, first, n * n);
    if (!sums.h_post) w.grad_h_post = rows_from<T>(w.grad_h_post, first, n);
    mix_write_backward_tokens(w, true, 0, tokens, sums);
  }

  void round_gradient(int64_t first, int64_t tokens) {
    S* out = rows_from<S>(args_.read.grad_x, first, plan_.n * plan_.width);
    for (int64_t row = 0; row < tokens * plan_.n; ++row) {
      store_row_as(gradient_.data() + row * plan_.padded, plan_.width, out + row * plan_.width);
    }
  }

  const BackwardPlan<S>& plan_;
  const BoundaryBackwardArgs& args_;
  std::optional<CoefficientAdjointTile<T>> adjoint_;
  Scratch<S> state_;
  Scratch<T> gradient_, grad_weights_, grad_logits_, grad_inv_rms_;
};

template <class S>
void backward(const BoundaryBackwardArgs& args, ParallelFor parallel_for) {
  using T = accumulate_t<S>;
  const BackwardPlan<S> plan(args, parallel_for);
  parallel(parallel_for, plan.parts, 1, [&](int64_t begin, int64_t end) {
    BackwardTask<S> task(plan);
    for (int64_t part = begin; part < end; ++part) task.partition(part);
  });
  if (args.write) mix_write_finish_sums(*args.write, plan.parts);
  if (args.read.grad_h_pre && args.read.h_pre.token_stride == 0) {
    sum_partials(args.read.partials, plan.parts, plan.n, plan.n,
                 static_cast<T*>(args.read.grad_h_pre));
  }
  if (plan.project) {
    coefficients_adjoint_finish(*args.coefficients, *plan.coefficients, plan.parts);
    project_backward_finish(*args.project, *plan.project, parallel_for);
  }
}

}  // namespace

void boundary_backward(const BoundaryBackwardArgs& args, ParallelFor parallel_for) {
  dispatch_dtype(args.read.dtype,
                 [&](auto dtype) { backward<typename decltype(dtype)::type>(args, parallel_for); });
}

}  // namespace HYPERSTREAMS_ISA_NAMESPACE

HYPERSTREAMS_CPU_ENTRY(boundary_backward, BoundaryBackwardArgs)

}  // namespace hyperstreams::cpu
