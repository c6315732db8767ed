#include "hyperstreams/read.h"
#include "kernel_benchmarks.h"

namespace hyperstreams::benchmarks {
namespace {

constexpr int kIsa = 3;

void read_forward(benchmark::State& state) {
  const Shape shape(state);
  Elements x(shape.dtype, shape.streams(), 1), u(shape.dtype, shape.hidden(), 2);
  std::vector<float> h_pre = random_values(shape.tokens * kStreams, 3);
  const ReadArgs args{shape.tokens, kStreams,      shape.width,
                      shape.dtype,  shape.view(x), {h_pre.data(), kStreams},
                      u.data()};
  measure(state, kIsa, shape.units(kStreams + 1), shape.hidden() * 2 * kStreams,
          [&] { cpu::read_forward(args, serial); });
}
BENCHMARK(read_forward)->Apply(shapes);

void read_backward(benchmark::State& state) {
  const Shape shape(state);
  Elements x(shape.dtype, shape.streams(), 1), grad_x(shape.dtype, shape.streams(), 2),
      grad_u(shape.dtype, shape.hidden(), 3);
  std::vector<float> h_pre = random_values(shape.tokens * kStreams, 4), grad_h_pre(h_pre.size());
  const ReadBackwardArgs args{shape.tokens,
                              kStreams,
                              shape.width,
                              shape.dtype,
                              shape.view(x),
                              {h_pre.data(), kStreams},
                              {grad_u.data(), shape.width},
                              grad_x.data(),
                              grad_h_pre.data(),
                              nullptr};
  measure(state, kIsa, shape.units(2 * kStreams + 1), shape.hidden() * 3 * kStreams,
          [&] { cpu::read_backward(args, serial); });
}
BENCHMARK(read_backward)->Apply(shapes);

}  // namespace
}  // namespace hyperstreams::benchmarks
