// How tokens and channels are given to threads: the parts that launch plans share.
#pragma once

#include "hyperstreams/plan.h"

namespace hyperstreams::cuda {

struct RowVectors {
  int size;       // channels in 16 bytes
  bool whole;     // rows are whole vectors, and aligned
  int64_t count;  // of a row
};

RowVectors row_vectors(int64_t width, DType dtype, int64_t alignment);

/// A thread for every vector and token: x along the vectors, y along the tokens, in strides of the
/// grid where there are more tokens than it holds.
LaunchShape plan_vector_threads(int64_t tokens, int64_t vectors);

/// Owners of tokens whose rows are `vectors` long. sums_tokens: few enough blocks to add up.
OwnerPlan plan_owners(int64_t tokens, int64_t vectors, bool sums_tokens);

/// Sums over tokens of `rows` rows of `vectors` vectors of `size` floats.
ColumnPlan plan_columns(int64_t tokens, int64_t rows, int64_t vectors, int size);

}  // namespace hyperstreams::cuda
