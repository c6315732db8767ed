#include "hyperstreams/project.h"
#include "kernel_benchmarks.h"

namespace hyperstreams::benchmarks {
namespace {

// The controller of mHC at n = 4: 2n + n * n logits.
constexpr int kIsa = 3, kLogits = 24;

ProjectShape project_shape(const Shape& shape) {
  return {shape.tokens, kStreams, shape.width, kLogits, shape.dtype};
}

void project_forward(benchmark::State& state) {
  const Shape shape(state);
  const ProjectShape projected = project_shape(shape);
  Elements x(shape.dtype, shape.streams(), 1);
  std::vector<float> phi = random_values(kLogits * projected.features(), 2),
                     logits(static_cast<size_t>(shape.tokens * kLogits)),
                     inv_rms(static_cast<size_t>(shape.tokens)),
                     workspace(static_cast<size_t>(project_workspace(projected)));
  const ProjectArgs args{projected,     shape.view(x),  phi.data(),
                         nullptr,       1e-6,           EpsPosition::kInside,
                         logits.data(), inv_rms.data(), workspace.data()};
  measure(state, kIsa, shape.units(kStreams), shape.hidden() * 2 * kLogits * kStreams,
          [&] { cpu::project_forward(args, serial); });
}
BENCHMARK(project_forward)->Apply(shapes);

void project_backward(benchmark::State& state) {
  const Shape shape(state);
  const ProjectShape projected = project_shape(shape);
  Elements x(shape.dtype, shape.streams(), 1), grad_x(shape.dtype, shape.streams(), 2);
  std::vector<float> phi = random_values(kLogits * projected.features(), 3),
                     inv_rms(static_cast<size_t>(shape.tokens), 1.7f),
                     grad_logits = random_values(shape.tokens * kLogits, 4),
                     grad_inv_rms = random_values(shape.tokens, 5), grad_phi(phi.size()),
                     workspace(static_cast<size_t>(project_backward_workspace(projected)));
  const ProjectBackwardArgs args{projected,
                                 shape.view(x),
                                 phi.data(),
                                 nullptr,
                                 inv_rms.data(),
                                 grad_logits.data(),
                                 grad_inv_rms.data(),
                                 1e-6,
                                 EpsPosition::kInside,
                                 grad_x.data(),
                                 grad_phi.data(),
                                 nullptr,
                                 workspace.data()};
  measure(state, kIsa, shape.units(2 * kStreams), shape.hidden() * 4 * kLogits * kStreams,
          [&] { cpu::project_backward(args, serial); });
}
BENCHMARK(project_backward)->Apply(shapes);

}  // namespace
}  // namespace hyperstreams::benchmarks
