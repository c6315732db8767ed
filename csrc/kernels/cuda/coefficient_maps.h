// The kernels of coefficients by map: one source file for each, map_<name>.cu.
#pragma once

#include <type_traits>

#include "device/device.h"
#include "hyperstreams/coefficients.h"
#include "hyperstreams/maps/free.h"
#include "hyperstreams/maps/identity.h"
#include "hyperstreams/plan.h"
#include "hyperstreams/project.h"

namespace hyperstreams::cuda {

/// Maps that exist for few n compile each of them.
template <class Map>
constexpr int kMaxStaticStreams = Map::kMaxStaticStreams;
template <>
constexpr int kMaxStaticStreams<maps::Free> = 0;
template <>
constexpr int kMaxStaticStreams<maps::Identity> = 0;

template <class Map>
constexpr bool kHasMix = !std::is_same_v<Map, maps::Identity>;

/// Logits that boundary has in parts of the channels; n <= 4.
struct LogitParts {
  const float* sums = nullptr;  // [parts, rows, count + 1], the squares last; null: none
  int64_t parts;
  int count;       // logits of a row: of a token or, per stream, of a stream
  float features;  // of a row
  float eps;
  EpsPosition eps_position;
  float *logits, *inv_rms;  // out [rows, count], [rows]
};

/// What boundary adds to the adjoint; n <= 4.
struct ReadAdjoint {
  const float* dots = nullptr;  // [pieces, tokens, n]: to grad_h_pre, if any
  int64_t pieces = 0;
  float features = 0;  // of a row. Not 0: grad_inv_rms becomes the factor of X' in its gradient
  float eps;
  EpsPosition eps_position;
};

/// Queue the kernel of settings.map = Map for at least one token. With parts, args.logits and
/// args.inv_rms are not read.
template <class Map>
Status map_forward(const CoefficientsArgs& args, const LogitParts& parts,
                   const CoefficientsPlan& plan, Stream stream);

/// The first stage; its partials are [plan.partials, 2, K]: for every logit, the sums over tokens
/// of what its alpha and its bias get.
template <class Map>
Status map_backward(const CoefficientsBackwardArgs& args, const ReadAdjoint& read,
                    const CoefficientsPlan& plan, Stream stream);

/// The second stage: grad_alpha and grad_bias from `parts` rows of partials.
Status coefficient_parameters(const CoefficientsBackwardArgs& args, int64_t parts, Stream stream);

}  // namespace hyperstreams::cuda
