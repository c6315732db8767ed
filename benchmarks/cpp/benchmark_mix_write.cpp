#include "hyperstreams/mix_write.h"
#include "kernel_benchmarks.h"

namespace hyperstreams::benchmarks {
namespace {

constexpr int kIsa = 3, kMatrix = kStreams * kStreams;

void mix_write_forward(benchmark::State& state) {
  const Shape shape(state);
  Elements x(shape.dtype, shape.streams(), 1), y(shape.dtype, shape.hidden(), 2),
      x_out(shape.dtype, shape.streams(), 3);
  std::vector<float> h_res = random_values(shape.tokens * kMatrix, 4),
                     h_post = random_values(shape.tokens * kStreams, 5);
  const MixWriteArgs args{shape.tokens,
                          kStreams,
                          shape.width,
                          shape.dtype,
                          shape.dtype,
                          shape.view(x),
                          {y.data(), shape.width},
                          {h_res.data(), kMatrix},
                          {h_post.data(), kStreams},
                          nullptr,
                          x_out.data()};
  measure(state, kIsa, shape.units(2 * kStreams + 1), shape.hidden() * (2 * kMatrix + 2 * kStreams),
          [&] { cpu::mix_write_forward(args, serial); });
}
BENCHMARK(mix_write_forward)->Apply(shapes);

void mix_write_backward(benchmark::State& state) {
  const Shape shape(state);
  Elements x(shape.dtype, shape.streams(), 1), y(shape.dtype, shape.hidden(), 2),
      grad_out(shape.dtype, shape.streams(), 3), grad_x(shape.dtype, shape.streams(), 4),
      grad_y(shape.dtype, shape.hidden(), 5);
  std::vector<float> h_res = random_values(shape.tokens * kMatrix, 6),
                     h_post = random_values(shape.tokens * kStreams, 7), grad_h_res(h_res.size()),
                     grad_h_post(h_post.size());
  std::vector<double> partials(
      static_cast<size_t>(row_partitions(shape.tokens, shape.width) * (kMatrix + kStreams)));
  const MixWriteBackwardArgs args{shape.tokens,
                                  kStreams,
                                  shape.width,
                                  shape.dtype,
                                  shape.dtype,
                                  shape.view(grad_out),
                                  shape.view(x),
                                  {y.data(), shape.width},
                                  {h_res.data(), kMatrix},
                                  {h_post.data(), kStreams},
                                  nullptr,
                                  grad_x.data(),
                                  grad_y.data(),
                                  grad_h_res.data(),
                                  grad_h_post.data(),
                                  nullptr,
                                  partials.data(),
                                  nullptr};
  measure(state, kIsa, shape.units(3 * kStreams + 2), shape.hidden() * (4 * kMatrix + 4 * kStreams),
          [&] { cpu::mix_write_backward(args, serial); });
}
BENCHMARK(mix_write_backward)->Apply(shapes);

}  // namespace
}  // namespace hyperstreams::benchmarks
