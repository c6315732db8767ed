// The first kernel of boundary's forward on float streams.
#include "boundary_write.h"

namespace hyperstreams::cuda {

template Status boundary_write<float>(const BoundaryWriteArgs&, const BoundaryPlan&, Stream);

}  // namespace hyperstreams::cuda
