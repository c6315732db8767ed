// The second kernel of boundary's backward on bfloat16 streams.
#include "boundary_gradients.h"

namespace hyperstreams::cuda {

template Status boundary_gradients<BFloat16>(const BoundaryGradientsArgs&, const BoundaryPlan&,
                                             Stream);

}  // namespace hyperstreams::cuda
