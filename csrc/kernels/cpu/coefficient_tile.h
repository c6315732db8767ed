// What the forward and the backward of coefficients share: the plan of a call, tiles of tokens in
// lanes, and the activation stage.
//
// A tile is `Lanes<T>::size` tokens. Lanes beyond the last token hold zeros, are computed and are
// never stored.
#pragma once

#include <vector>

#include "hyperstreams/coefficients.h"
#include "map_functions.h"
#include "simd_math.h"
#include "tile_transpose.h"

namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE {

/// One of the three runs of logits that share an activation.
struct Stage {
  const ActivationSettings* activation;
  int begin, end;
};

/// Everything about a call that does not depend on the token.
template <class T>
struct CoefficientPlan {
  using lanes_t = Lanes<T>;
  int n, logits, groups, rms;  // counts; rms: inverse rms values per token
  Stage stages[3];
  const T* bias;
  T scale[kMaxLogits];          // alpha of each logit
  int group[kMaxLogits];        // of each logit
  int stream[kMaxLogits] = {};  // which inverse rms multiplies each logit
  int place[kMaxLogits];        // of each logit in its row
  MapFunctions<T> map;
  const MapSettings* map_settings;

  CoefficientPlan(const CoefficientSettings& s, const void* alpha, const void* bias_data)
      : n(s.n_streams),
        logits(2 * n + mix_logit_count(s.map, s.map_settings, n)),
        groups(2 + s.mix_groups),
        rms(s.per_stream ? s.n_streams : 1),
        stages{{&s.read, 0, n}, {&s.write, n, 2 * n}, {&s.mix, 2 * n, logits}},
        bias(static_cast<const T*>(bias_data)),
        map_settings(&s.map_settings) {
    int k = 0;
    for (int g = 0; g < groups; ++g) {
      const int end = k + (g < 2 ? n : s.mix_group_sizes[g - 2]);
      for (; k < end; ++k) {
        group[k] = g;
        place[k] = k;
        scale[k] = static_cast<const T*>(alpha)[g];
      }
    }
    for (int i = 0; s.per_stream && i < n; ++i) {
      for (int slot = 0; slot < 2 + n; ++slot) {
        const int joint = slot * n + i;
        place[joint] = i * (2 + n) + slot;
        stream[joint] = i;
      }
    }
    find_map(s.map_settings, n, s.map, &map);
  }
};

template <ActivationKind kKind, bool kOutside>
struct ActivationForm {
  static constexpr ActivationKind kind = kKind;
  static constexpr bool outside = kOutside;
};

/// Calls f(ActivationForm<kind, outside>{}).
template <class F>
HYPERSTREAMS_INLINE void dispatch_activation(const ActivationSettings& a, const F& f) {
  using Kind = ActivationKind;
  switch (a.kind) {
    case Kind::kSigmoid:
      return a.outside ? f(ActivationForm<Kind::kSigmoid, true>{})
                       : f(ActivationForm<Kind::kSigmoid, false>{});
    case Kind::kTanh:
      return a.outside ? f(ActivationForm<Kind::kTanh, true>{})
                       : f(ActivationForm<Kind::kTanh, false>{});
    case Kind::kNone:
      return a.outside ? f(ActivationForm<Kind::kNone, true>{})
                       : f(ActivationForm<Kind::kNone, false>{});
  }
}

/// x[0, kCount) to act(x).
template <ActivationKind kKind, int kCount, class T>
HYPERSTREAMS_INLINE void act(Lanes<T>* x) {
  if constexpr (kKind == ActivationKind::kSigmoid) inline_sigmoid<kCount>(x);
  if constexpr (kKind == ActivationKind::kTanh) inline_tanh<kCount>(x);
}

/// Derivative of act at the point where it has this value.
template <ActivationKind kKind, class T>
HYPERSTREAMS_INLINE Lanes<T> act_slope(Lanes<T> value) {
  const Lanes<T> one = Lanes<T>::set(1);
  if constexpr (kKind == ActivationKind::kSigmoid) return value * (one - value);
  if constexpr (kKind == ActivationKind::kTanh) return fma(Lanes<T>::set(0) - value, value, one);
  return one;
}

/// An array within a LaneStorage.
template <class T>
struct LaneArray {
  Lanes<T>* first;
  int count;

  Lanes<T>* data() const { return first; }
  Lanes<T>& operator[](int k) const { return first[k]; }
  Lanes<T>* begin() const { return first; }
  Lanes<T>* end() const { return first + count; }
};

/// One allocation, of zeros, for all the arrays of a tile: a call of few tokens takes less time
/// than an allocation for each of them.
template <class T>
class LaneStorage {
 public:
  explicit LaneStorage(int count) : lanes_(static_cast<size_t>(count)) {}

  LaneArray<T> take(int count) {
    used_ += count;
    return {lanes_.data() + used_ - count, count};
  }

 private:
  std::vector<Lanes<T>> lanes_;
  int used_ = 0;
};

/// Per-thread arrays of lanes for one tile.
template <class T>
struct CoefficientTile {
  using lanes_t = Lanes<T>;
  const CoefficientPlan<T>& plan;
  LaneStorage<T> storage;
  LaneArray<T> logits;  // as in the rows
  LaneArray<T> inv_rms;
  LaneArray<T> acted, values;  // in joint order; acted: act's own value, not of kNone
  LaneArray<T> h_res, scratch;

  explicit CoefficientTile(const CoefficientPlan<T>& p)
      : CoefficientTile(p, p.map.forward_scratch, 0) {}

  /// map_scratch: lanes for the map; more: those that a derived tile takes from the storage.
  CoefficientTile(const CoefficientPlan<T>& p, int map_scratch, int more)
      : plan(p),
        storage(3 * p.logits + p.rms + p.n * p.n + map_scratch + more),
        logits(storage.take(p.logits)),
        inv_rms(storage.take(p.rms)),
        acted(storage.take(p.logits)),
        values(storage.take(p.logits)),
        h_res(storage.take(p.n * p.n)),
        scratch(storage.take(map_scratch)) {
    for (lanes_t& rms : inv_rms) rms = lanes_t::set(1);
  }

  // The arrays point into the storage.
  CoefficientTile(const CoefficientTile&) = delete;
  CoefficientTile& operator=(const CoefficientTile&) = delete;

  /// logits, inv_rms and the activation stage of `count` tokens from token t.
  void load(const RowsView& logit_rows, const RowsView& rms_rows, int64_t t, int64_t count) {
    load_logits(logit_rows, rms_rows, t, count);
    for (const Stage& stage : plan.stages) activate(stage);
  }

  void load_logits(const RowsView& logit_rows, const RowsView& rms_rows, int64_t t, int64_t count) {
    load_rows(logit_rows, t, count, plan.logits, logits.data());
    if (rms_rows.data) load_rows(rms_rows, t, count, plan.rms, inv_rms.data());
  }

  /// From logits and inv_rms to acted and values.
  void activate(const Stage& stage) {
    dispatch_activation(*stage.activation, [&](auto form) { activate(stage, form); });
  }

 private:
  template <class Form>
  HYPERSTREAMS_INLINE void activate(const Stage& stage, Form form) {
    int k = stage.begin;
    for (; k + kOverlap <= stage.end; k += kOverlap) activate<kOverlap>(stage, form, k);
    for (; k < stage.end; ++k) activate<1>(stage, form, k);
  }

  /// Logits [first, first + kCount) of a stage.
  template <int kCount, class Form>
  HYPERSTREAMS_INLINE void activate(const Stage& stage, Form, int first) {
    const CoefficientPlan<T>& p = plan;
    const lanes_t factor = lanes_t::set(static_cast<T>(stage.activation->factor));
    const lanes_t offset = lanes_t::set(static_cast<T>(stage.activation->offset));
    lanes_t y[kCount];
    for (int j = 0; j < kCount; ++j) {
      const int k = first + j;
      const lanes_t z = logits[p.place[k]] * inv_rms[p.stream[k]];
      y[j] = Form::outside ? z : fma(lanes_t::set(p.scale[k]), z, lanes_t::set(p.bias[k]));
    }
    act<Form::kind, kCount>(y);
    for (int j = 0; j < kCount; ++j) {
      const int k = first + j;
      if (Form::kind != ActivationKind::kNone) acted[k] = y[j];
      const lanes_t h =
          Form::outside ? fma(lanes_t::set(p.scale[k]), y[j], lanes_t::set(p.bias[k])) : y[j];
      values[k] = fma(factor, h, offset);
    }
  }
};

/// The coefficients of tokens [begin, end). For float and double.
template <class T>
void coefficients_tokens(const CoefficientsArgs& args, CoefficientTile<T>& tile, int64_t begin,
                         int64_t end);

}  // namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE
