// Launch plan of stream_stats; what each number means stands in the contract.
#include "rows.h"

namespace hyperstreams::cuda {

StreamStatsPlan plan_stream_stats(int64_t tokens, int64_t width, DType dtype, int64_t alignment) {
  const RowVectors vectors = row_vectors(width, dtype, alignment);
  return {vectors.size, vectors.whole, plan_owners(tokens, 1, true)};
}

}  // namespace hyperstreams::cuda
