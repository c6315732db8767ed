// From the op arguments (n_streams, map, settings, constants) to CoefficientSettings. The encoding
// is written by python/hyperstreams/ops/_coefficient_settings.py:
//   settings:  [per_stream, read kind, read form, write kind, write form, mix kind, mix form,
//               n_groups, group sizes..., the map's own integers...]
//   constants: [read factor, offset, write factor, offset, mix factor, offset, the map's own...]
#pragma once

#include "hyperstreams/coefficients.h"
#include "tensors.h"

namespace hyperstreams::torch_binding {

inline CoefficientSettings coefficient_settings(int64_t n_streams, int64_t map,
                                                const std::vector<int64_t>& settings,
                                                const std::vector<double>& constants,
                                                const char* op) {
  CoefficientSettings s = {};
  STD_TORCH_CHECK(n_streams >= 1 && n_streams <= kMaxStreams && map >= 0 && map <= 6, op,
                  ": unknown map or n_streams out of range");
  s.n_streams = static_cast<int>(n_streams);
  s.map = static_cast<MapKind>(map);
  STD_TORCH_CHECK(settings.size() >= 8 && constants.size() >= 6, op, ": malformed settings");
  s.per_stream = settings[0] != 0;
  ActivationSettings* stages[] = {&s.read, &s.write, &s.mix};
  for (int k = 0; k < 3; ++k) {
    STD_TORCH_CHECK(settings[1 + 2 * k] >= 0 && settings[1 + 2 * k] <= 2, op,
                    ": unknown activation");
    *stages[k] = {static_cast<ActivationKind>(settings[1 + 2 * k]), settings[2 + 2 * k] != 0,
                  constants[2 * k], constants[2 * k + 1]};
  }
  const size_t groups = static_cast<size_t>(settings[7]);
  STD_TORCH_CHECK(settings[7] >= 0 && settings[7] <= kMaxMixGroups &&
                      settings.size() >= 8 + groups && settings.size() <= 16 + groups &&
                      constants.size() <= 10,
                  op, ": malformed settings");
  for (size_t k = 8 + groups; k < settings.size(); ++k) {
    s.map_settings.ints[k - 8 - groups] = static_cast<int>(settings[k]);
  }
  for (size_t k = 6; k < constants.size(); ++k) s.map_settings.floats[k - 6] = constants[k];
  const MapSettings& m = s.map_settings;
  STD_TORCH_CHECK(
      s.map != MapKind::kSinkhorn || (m.ints[0] >= 1 && m.ints[0] <= 1000000 && m.floats[1] > 0),
      op, ": sinkhorn needs 1 to 1000000 iterations and temperature > 0");
  const int mix_logits = mix_logit_count(s.map, m, s.n_streams);
  STD_TORCH_CHECK(mix_logits >= 0, op, ": the mixer does not exist for n_streams ", n_streams);
  STD_TORCH_CHECK(!s.per_stream || mix_logits == s.n_streams * s.n_streams, op,
                  ": per_stream needs n * n mixer logits");
  s.mix_groups = static_cast<int>(groups);
  int64_t grouped = 0;
  for (size_t g = 0; g < groups; ++g) {
    STD_TORCH_CHECK(settings[8 + g] >= 0 && settings[8 + g] <= mix_logits, op,
                    ": malformed group sizes");
    s.mix_group_sizes[g] = static_cast<int>(settings[8 + g]);
    grouped += settings[8 + g];
  }
  STD_TORCH_CHECK(grouped == mix_logits, op, ": group sizes must add up to ", mix_logits);
  return s;
}

}  // namespace hyperstreams::torch_binding
