// The second kernel of boundary's backward on float streams.
#include "boundary_gradients.h"

namespace hyperstreams::cuda {

template Status boundary_gradients<float>(const BoundaryGradientsArgs&, const BoundaryPlan&,
                                          Stream);

}  // namespace hyperstreams::cuda
