// Launch plan of read; what each number means stands in the contract.
#include "rows.h"

namespace hyperstreams::cuda {

ReadPlan plan_read(int64_t tokens, int64_t width, DType dtype, int64_t alignment, bool is_static) {
  const RowVectors vectors = row_vectors(width, dtype, alignment);
  return {vectors.size, vectors.whole, plan_vector_threads(tokens, vectors.count),
          plan_owners(tokens, vectors.count, is_static)};
}

}  // namespace hyperstreams::cuda
