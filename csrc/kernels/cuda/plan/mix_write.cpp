// Launch plan of mix_write; what each number means stands in the contract.
#include "rows.h"

namespace hyperstreams::cuda {

MixWritePlan plan_mix_write(int64_t tokens, int64_t width, DType dtype, int64_t alignment,
                            bool is_static) {
  const RowVectors vectors = row_vectors(width, dtype, alignment);
  return {vectors.size, vectors.whole, plan_vector_threads(tokens, vectors.count),
          plan_owners(tokens, 1, is_static), plan_columns(tokens, 1, vectors.count, vectors.size)};
}

}  // namespace hyperstreams::cuda
