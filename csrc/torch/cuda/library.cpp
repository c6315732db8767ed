// What the CUDA library as a whole is asked.
#include <torch/csrc/stable/library.h>

#include <string>

namespace hyperstreams::torch_binding {
namespace {

/// The architectures that the kernels were compiled for, as CMake names them, separated by spaces.
std::string cuda_archs() { return HYPERSTREAMS_CUDA_ARCHS; }

}  // namespace
}  // namespace hyperstreams::torch_binding

STABLE_TORCH_LIBRARY_FRAGMENT(hyperstreams, m) { m.def("_cuda_archs() -> str"); }

STABLE_TORCH_LIBRARY_IMPL(hyperstreams, CompositeExplicitAutograd, m) {
  m.impl("_cuda_archs", TORCH_BOX(&hyperstreams::torch_binding::cuda_archs));
}
