// project under a given plan, for tests of every split.
#pragma once

#include "hyperstreams/plan.h"

namespace hyperstreams::cuda {

Status project_forward(const ProjectArgs& args, const ProjectPlan& plan, Stream stream);

}  // namespace hyperstreams::cuda
