// How dtype, n and alignment of a launch become compile-time constants.
#pragma once

#include <type_traits>

#include "device/device.h"

namespace hyperstreams::cuda {

template <class T>
struct TypeTag {
  using type = T;
};

/// Calls f(TypeTag<stored type>{}) and returns its status.
template <class F>
Status dispatch_dtype(DType dtype, const F& f) {
  switch (dtype) {
    case DType::kFloat32:
      return f(TypeTag<float>{});
    case DType::kBFloat16:
      return f(TypeTag<BFloat16>{});
    case DType::kFloat16:
      return f(TypeTag<Float16>{});
    case DType::kFloat64:
      break;
  }
  return Status::kUnsupportedDType;
}

/// Calls f(std::integral_constant<int, kN>{}) for n = 1 to 4; others get 0, for which kernels use
/// the run-time count.
template <class F>
Status dispatch_few_streams(int n_streams, const F& f) {
  switch (n_streams) {
    case 1:
      return f(std::integral_constant<int, 1>{});
    case 2:
      return f(std::integral_constant<int, 2>{});
    case 3:
      return f(std::integral_constant<int, 3>{});
    case 4:
      return f(std::integral_constant<int, 4>{});
    default:
      return f(std::integral_constant<int, 0>{});
  }
}

/// The same, with n = 8 a constant too.
template <class F>
Status dispatch_streams(int n_streams, const F& f) {
  if (n_streams == 8) return f(std::integral_constant<int, 8>{});
  return dispatch_few_streams(n_streams, f);
}

template <class F>
Status dispatch_bool(bool value, const F& f) {
  return value ? f(std::true_type{}) : f(std::false_type{});
}

}  // namespace hyperstreams::cuda
