// Launch plan of expand; what each number means stands in the contract.
#include "rows.h"

namespace hyperstreams::cuda {

ExpandPlan plan_expand(int64_t tokens, int n_streams, int64_t width, DType dtype,
                       int64_t alignment) {
  const RowVectors vectors = row_vectors(width, dtype, alignment);
  return {vectors.size, vectors.whole, plan_vector_threads(tokens, vectors.count),
          plan_columns(tokens, n_streams, vectors.count, vectors.size)};
}

}  // namespace hyperstreams::cuda
