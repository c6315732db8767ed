// From torch tensors to contract structs. Python has checked shapes and dtypes with worded errors
// before an op is called; the checks here are the last line of defence.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "huge_pages.h"
#include "hyperstreams/common.h"

namespace hyperstreams::torch_binding {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline DType dtype_of(const Tensor& x, const char* op) {
  switch (x.scalar_type()) {
    case ScalarType::Float:
      return DType::kFloat32;
    case ScalarType::BFloat16:
      return DType::kBFloat16;
    case ScalarType::Half:
      return DType::kFloat16;
    case ScalarType::Double:
      return DType::kFloat64;
    default:
      STD_TORCH_CHECK(false, op, ": streams must be float32, bfloat16, float16 or float64");
  }
  return DType::kFloat32;
}

/// dtype of coefficients and parameters beside streams of dtype `streams`.
inline ScalarType coefficient_type(DType streams) {
  return streams == DType::kFloat64 ? ScalarType::Double : ScalarType::Float;
}

/// Stride in elements that walks all leading dimensions of `x` but the last `inner` as one token
/// axis, or nothing when there is no such stride. Returns 0 tokens' worth for empty tensors.
inline std::optional<int64_t> token_stride(const Tensor& x, int64_t inner) {
  int64_t stride = 0, span = 1;
  for (int64_t d = x.dim() - inner - 1; d >= 0; --d) {
    const int64_t size = x.size(d);
    if (size == 1) continue;
    if (span == 1) {
      stride = x.stride(d);
    } else if (x.stride(d) != stride * span) {
      return std::nullopt;
    }
    span *= size;
  }
  return stride;
}

inline bool innermost_is_contiguous(const Tensor& x) {
  return x.size(x.dim() - 1) <= 1 || x.stride(x.dim() - 1) == 1;
}

/// `x`, or a contiguous copy of it.
inline Tensor as_contiguous(const Tensor& x) {
  return x.is_contiguous() ? x : torch::stable::contiguous(x);
}

/// The device type of the library that includes this header: USE_CUDA is defined for _C_cuda alone.
#ifdef USE_CUDA
constexpr const char* kDeviceName = "a CUDA device";
inline bool is_on_device(const Tensor& x) { return x.is_cuda(); }
#else
constexpr const char* kDeviceName = "the CPU";
inline bool is_on_device(const Tensor& x) { return x.is_cpu(); }
#endif

/// Streams [..., n, C] as the kernels address them; keeps a contiguous copy alive when the strides
/// of `x` cannot be expressed.
struct Streams {
  Tensor tensor;
  int64_t tokens;
  int n_streams;
  int64_t width;
  DType dtype;
  StreamsView view;

  Streams(const Tensor& x, const char* op) : tensor(x) {
    STD_TORCH_CHECK(x.dim() >= 2, op, ": streams must be [..., n, C], got rank ", x.dim());
    STD_TORCH_CHECK(is_on_device(x), op, ": streams must be on ", kDeviceName);
    std::optional<int64_t> stride = token_stride(x, 2);
    if (!stride || !innermost_is_contiguous(x)) {
      tensor = as_contiguous(x);
      stride = x.size(x.dim() - 2) * x.size(x.dim() - 1);
    }
    n_streams = static_cast<int>(x.size(x.dim() - 2));
    width = x.size(x.dim() - 1);
    tokens = n_streams * width == 0 ? 0 : x.numel() / (n_streams * width);
    dtype = dtype_of(x, op);
    STD_TORCH_CHECK(n_streams >= 1 && n_streams <= kMaxStreams, op, ": n_streams must be in 1..",
                    kMaxStreams, ", got ", n_streams);
    STD_TORCH_CHECK(width >= 1, op, ": width must be >= 1");
    view = {tensor.const_data_ptr(), *stride, tensor.stride(tensor.dim() - 2)};
  }
};

/// Rows [..., row] or one static [row]; `inner` trailing dimensions make a row of contiguous
/// elements. Keeps a contiguous copy alive when needed.
struct Rows {
  Tensor tensor;
  bool is_static;
  RowsView view;

  Rows(const Tensor& rows, int64_t inner, int64_t tokens, int64_t row, ScalarType type,
       const char* op, const char* argument)
      : tensor(rows), is_static(rows.dim() == inner) {
    STD_TORCH_CHECK(is_on_device(rows), op, ": ", argument, " must be on ", kDeviceName,
                    ", like the streams");
    STD_TORCH_CHECK(rows.scalar_type() == type, op, ": ", argument, " has the wrong dtype");
    STD_TORCH_CHECK(rows.dim() >= inner, op, ": ", argument, " must have rank >= ", inner,
                    ", got rank ", rows.dim());
    bool inner_contiguous = true;
    int64_t inner_size = 1;
    for (int64_t d = rows.dim() - 1; d >= rows.dim() - inner; --d) {
      inner_contiguous &= rows.size(d) <= 1 || rows.stride(d) == inner_size;
      inner_size *= rows.size(d);
    }
    STD_TORCH_CHECK(inner_size == row && rows.numel() == (is_static ? row : tokens * row), op, ": ",
                    argument, " has the wrong number of elements");
    std::optional<int64_t> stride = is_static ? 0 : token_stride(rows, inner);
    // A stride of 0 would read as static, so rows expanded over tokens are copied.
    if (!stride || !inner_contiguous || (!is_static && tokens > 1 && *stride == 0)) {
      tensor = as_contiguous(rows);
      stride = is_static ? 0 : row;
    }
    if (!is_static && tokens <= 1) stride = row;
    view = {tensor.const_data_ptr(), *stride};
  }
};

/// A tensor's shape as a vector, with the last `drop` dimensions replaced by `tail`.
inline std::vector<int64_t> shape_with_tail(const Tensor& x, int64_t drop,
                                            std::initializer_list<int64_t> tail) {
  std::vector<int64_t> shape;
  for (int64_t d = 0; d < x.dim() - drop; ++d) shape.push_back(x.size(d));
  shape.insert(shape.end(), tail);
  return shape;
}

/// Contiguous, uninitialised, on the device of `like`. The dispatcher would look aten::new_empty up
/// by name, which takes as long as a small op.
inline Tensor new_empty(const Tensor& like, const std::vector<int64_t>& shape, ScalarType type) {
  std::vector<int64_t> strides(shape.size());
  int64_t stride = 1;
  for (size_t d = shape.size(); d-- > 0;) {
    strides[d] = stride;
    stride *= shape[d] > 1 ? shape[d] : 1;
  }
  int32_t device_type = 0, device_index = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  const auto dtype = torch::stable::detail::to<int32_t>(torch::stable::detail::from(type));
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(shape.size()), shape.data(),
                                                  strides.data(), dtype, device_type, device_index,
                                                  &handle));
  Tensor empty(handle);
#ifndef USE_CUDA
  advise_huge_pages(empty.mutable_data_ptr(), empty.numel() * empty.element_size());
#endif
  return empty;
}

/// Contiguous, uninitialised, of the shape and dtype of `like`.
inline Tensor new_empty_as(const Tensor& like) {
  return new_empty(like, shape_with_tail(like, 0, {}), like.scalar_type());
}

/// Uninitialised memory for one call, on the device of `like`; null where nothing is needed. On the
/// CPU it is plain memory, since a tensor takes longer to make than a small op to compute.
class Scratch {
 public:
  Scratch(const Tensor& like, int64_t size, ScalarType type) {
    if (size == 0) return;
#ifdef USE_CUDA
    tensor_ = new_empty(like, {size}, type);
    data_ = tensor_->mutable_data_ptr();
#else
    static_cast<void>(like);
    // As tensors begin: a vector across two cache lines takes two loads.
    constexpr uintptr_t kLine = 64;
    const size_t bytes = static_cast<size_t>(size) * (type == ScalarType::Double ? 8 : 4);
    memory_.reset(new std::byte[bytes + kLine - 1]);
    const auto address = reinterpret_cast<uintptr_t>(memory_.get());
    data_ = memory_.get() + (kLine - address % kLine) % kLine;
    advise_huge_pages(data_, bytes);
#endif
  }

  void* data() const { return data_; }
  double* doubles() const { return static_cast<double*>(data_); }

 private:
#ifdef USE_CUDA
  std::optional<Tensor> tensor_;
#else
  std::unique_ptr<std::byte[]> memory_;
#endif
  void* data_ = nullptr;
};

/// The CPU kernels' threads are torch's own.
inline void parallel_for(int64_t tasks, int64_t grain,
                         void (*body)(int64_t begin, int64_t end, void* context), void* context) {
  torch::stable::parallel_for(0, tasks, grain,
                              [&](int64_t begin, int64_t end) { body(begin, end, context); });
}

}  // namespace hyperstreams::torch_binding
