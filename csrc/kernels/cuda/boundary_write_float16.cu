// The first kernel of boundary's forward on float16 streams.
#include "boundary_write.h"

namespace hyperstreams::cuda {

template Status boundary_write<Float16>(const BoundaryWriteArgs&, const BoundaryPlan&, Stream);

}  // namespace hyperstreams::cuda
