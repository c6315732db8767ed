// The kernels of coefficients by map: one source file for each, map_<name>.cu.
#pragma once

#include <type_traits>

#include "device/device.h"
#include "hyperstreams/coefficients.h"
#include "hyperstreams/maps/free.h"
#include "hyperstreams/maps/identity.h"
#include "hyperstreams/plan.h"

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

/// Queue the kernel of settings.map = Map for at least one token.
template <class Map>
Status map_forward(const CoefficientsArgs& args, const CoefficientsPlan& plan, Stream stream);

/// The first stage; its partials are [plan.partials, 2, K]: for every logit, the sums over tokens
/// of what its alpha and its bias get.
template <class Map>
Status map_backward(const CoefficientsBackwardArgs& args, const CoefficientsPlan& plan,
                    Stream stream);

/// The second stage: grad_alpha and grad_bias from `parts` rows of partials.
Status coefficient_parameters(const CoefficientsBackwardArgs& args, int64_t parts, Stream stream);

}  // namespace hyperstreams::cuda
