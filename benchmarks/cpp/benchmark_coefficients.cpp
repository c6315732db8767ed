#include <string>

#include "hyperstreams/coefficients.h"
#include "kernel_benchmarks.h"

namespace hyperstreams::benchmarks {
namespace {

constexpr int kIsa = 2, kMatrix = kStreams * kStreams;

/// A map by number, with the settings of the mixer of the same name.
struct Map {
  const char* name;
  MapKind kind;
  MapSettings settings;
};

const std::vector<Map>& maps() {
  static const std::vector<Map> all = {
      {"free", MapKind::kFree, {}},
      {"sinkhorn", MapKind::kSinkhorn, {{20, 0, 0, 0}, {0, 1}}},
      {"permutation", MapKind::kPermutation, {}},
      {"kronecker", MapKind::kKronecker, {{0, 2, 2}, {}}},
      {"spectral", MapKind::kSpectral, {{}, {1, 1}}},
      {"circulant", MapKind::kCirculant, {{0}, {1}}},
  };
  return all;
}

CoefficientSettings settings_of(const Map& map) {
  CoefficientSettings settings = {};
  settings.n_streams = kStreams;
  settings.read = {ActivationKind::kSigmoid, false, 1, 0};
  settings.write = {ActivationKind::kSigmoid, false, 2, 0};
  settings.mix = {ActivationKind::kNone, false, 1, 0};
  settings.map = map.kind;
  settings.map_settings = map.settings;
  settings.mix_groups = 1;
  settings.mix_group_sizes[0] = mix_logit_count(map.kind, map.settings, kStreams);
  return settings;
}

/// Inputs, outputs and gradients of one call.
struct Problem {
  int64_t tokens;
  CoefficientSettings settings;
  int64_t logit_count;
  std::vector<float> logits, inv_rms, alpha, bias, h_pre, h_post, h_res;
  std::vector<float> grad_logits, grad_inv_rms, grad_alpha, grad_bias;
  std::vector<double> partials;

  explicit Problem(const benchmark::State& state)
      : tokens(state.range(0)),
        settings(settings_of(maps()[static_cast<size_t>(state.range(1))])),
        logit_count(2 * kStreams + settings.mix_group_sizes[0]),
        logits(random_values(tokens * logit_count, 1)),
        inv_rms(static_cast<size_t>(tokens), 1.3f),
        alpha(3, 0.5f),
        bias(random_values(logit_count, 2)),
        h_pre(random_values(tokens * kStreams, 3)),
        h_post(random_values(tokens * kStreams, 4)),
        h_res(random_values(tokens * kMatrix, 5)),
        grad_logits(logits.size()),
        grad_inv_rms(inv_rms.size()),
        grad_alpha(alpha.size()),
        grad_bias(bias.size()),
        partials(static_cast<size_t>(token_partitions(tokens) * (3 + logit_count))) {}

  /// Bytes of so many floats per token.
  int64_t bytes(int64_t values) const { return tokens * values * 4; }
  RowsView logit_rows() const { return {logits.data(), logit_count}; }
};

constexpr int64_t kOutputs = 2 * kStreams + kMatrix;

void coefficients_forward(benchmark::State& state) {
  Problem p(state);
  const CoefficientsArgs args{
      p.tokens,       DType::kFloat32, p.settings,     p.logit_rows(),  {p.inv_rms.data(), 1},
      p.alpha.data(), p.bias.data(),   p.h_pre.data(), p.h_post.data(), p.h_res.data()};
  measure(state, kIsa, p.bytes(p.logit_count + 1 + kOutputs), 0,
          [&] { cpu::coefficients_forward(args, serial); });
}

void coefficients_backward(benchmark::State& state) {
  Problem p(state);
  const CoefficientsBackwardArgs args{p.tokens,
                                      DType::kFloat32,
                                      p.settings,
                                      {p.h_pre.data(), kStreams},
                                      {p.h_post.data(), kStreams},
                                      {p.h_res.data(), kMatrix},
                                      p.logit_rows(),
                                      {p.inv_rms.data(), 1},
                                      p.alpha.data(),
                                      p.bias.data(),
                                      p.grad_logits.data(),
                                      p.grad_inv_rms.data(),
                                      p.grad_alpha.data(),
                                      p.grad_bias.data(),
                                      p.partials.data()};
  measure(state, kIsa, p.bytes(2 * (p.logit_count + 1) + kOutputs), 0,
          [&] { cpu::coefficients_backward(args, serial); });
}

/// One name for each map: coefficients_forward/sinkhorn/...
const bool registered = [] {
  for (size_t map = 0; map < maps().size(); ++map) {
    const std::string name = maps()[map].name;
    for (auto* made : {benchmark::RegisterBenchmark(("coefficients_forward/" + name).c_str(),
                                                    coefficients_forward),
                       benchmark::RegisterBenchmark(("coefficients_backward/" + name).c_str(),
                                                    coefficients_backward)}) {
      made->ArgNames({"tokens", "map", "isa"});
      for (int level = 0; level <= static_cast<int>(cpu::detected_isa_level()); ++level) {
        made->Args({8192, static_cast<int64_t>(map), level});
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace hyperstreams::benchmarks
