// boundary under a given plan, for tests of every split.
#pragma once

#include "hyperstreams/boundary.h"
#include "hyperstreams/plan.h"

namespace hyperstreams::cuda {

/// For at least one token, and a fused plan.
Status boundary_forward(const BoundaryArgs& args, const BoundaryPlan& plan, Stream stream);

}  // namespace hyperstreams::cuda
