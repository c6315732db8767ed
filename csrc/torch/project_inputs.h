// The parameters of a controller, for project and boundary.
#pragma once

#include "hyperstreams/project.h"
#include "tensors.h"

namespace hyperstreams::torch_binding {

inline EpsPosition eps_position_of(int64_t value, const char* op) {
  STD_TORCH_CHECK(value >= 0 && value <= 2, op, ": eps_position must be 0, 1 or 2, got ", value);
  return static_cast<EpsPosition>(value);
}

/// A contiguous parameter of the coefficients' dtype with `numel` elements, or undefined.
inline std::optional<Tensor> parameter(const std::optional<Tensor>& value, int64_t numel,
                                       ScalarType type, const char* op, const char* argument) {
  if (!value) return std::nullopt;
  STD_TORCH_CHECK(value->scalar_type() == type, op, ": ", argument, " has the wrong dtype");
  STD_TORCH_CHECK(value->numel() == numel, op, ": ", argument, " must have ", numel,
                  " elements, got ", value->numel());
  return as_contiguous(*value);
}

inline const void* data_or_null(const std::optional<Tensor>& value) {
  return value ? value->const_data_ptr() : nullptr;
}

inline ProjectShape shape_of(const Streams& streams, const Tensor& phi, const char* op) {
  STD_TORCH_CHECK(phi.dim() == 2 && phi.size(0) >= 1, op, ": phi must be [K, n * C] with K >= 1");
  return {streams.tokens, streams.n_streams, streams.width, phi.size(0), streams.dtype};
}

}  // namespace hyperstreams::torch_binding
