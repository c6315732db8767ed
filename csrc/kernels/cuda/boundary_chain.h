// boundary from the single ops, where its own kernels do not exist: n > 4, or more than 32 logits.
#pragma once

#include "hyperstreams/boundary.h"
#include "hyperstreams/plan.h"

namespace hyperstreams::cuda {

Status boundary_chain_forward(const BoundaryArgs& args, const BoundaryShape& shape, Stream stream);
Status boundary_chain_backward(const BoundaryBackwardArgs& args, const BoundaryShape& shape,
                               Stream stream);

}  // namespace hyperstreams::cuda
