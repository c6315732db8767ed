// The second kernel of boundary's backward on float16 streams.
#include "boundary_gradients.h"

namespace hyperstreams::cuda {

template Status boundary_gradients<Float16>(const BoundaryGradientsArgs&, const BoundaryPlan&,
                                            Stream);

}  // namespace hyperstreams::cuda
