// The module hyperstreams._info: what was built, and what the kernels would do. Pure functions; the
// ops do not depend on it and it does not depend on torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "build_info.h"
#include "hyperstreams/isa.h"
#include "hyperstreams/plan.h"

namespace hyperstreams::info {
namespace {

namespace py = pybind11;

std::vector<std::string> words(const char* text) {
  std::istringstream stream(text);
  std::vector<std::string> found;
  for (std::string word; stream >> word;) found.push_back(word);
  return found;
}

py::dict build_info() {
  py::dict info;
  info["version"] = HYPERSTREAMS_VERSION;
  info["git"] = HYPERSTREAMS_GIT;
  info["compiler"] = HYPERSTREAMS_COMPILER;
  info["flags"] = HYPERSTREAMS_CXX_FLAGS;
  info["build_type"] = HYPERSTREAMS_BUILD_TYPE;
  info["processor"] = HYPERSTREAMS_PROCESSOR;
  info["torch_headers"] = HYPERSTREAMS_TORCH_HEADERS;
  info["cuda_toolkit"] = HYPERSTREAMS_CUDA_TOOLKIT;
  info["cuda_archs"] = words(HYPERSTREAMS_CUDA_ARCHS);
  return info;
}

/// Every instruction-set level in ascending order: whether it was compiled, whether this processor
/// runs it.
py::list cpu_isa_levels() {
  const std::vector<std::string> compiled = words(HYPERSTREAMS_CPU_LEVELS);
  py::list levels;
  for (const cpu::IsaLevel level :
       {cpu::IsaLevel::kBase, cpu::IsaLevel::kAvx2, cpu::IsaLevel::kAvx512}) {
    const std::string name = cpu::isa_name(level);
    bool built = false;
    for (const std::string& candidate : compiled) built = built || candidate == name;
    py::dict entry;
    entry["name"] = name;
    entry["compiled"] = built;
    entry["runs_here"] = built && level <= cpu::detected_isa_level();
    levels.append(entry);
  }
  return levels;
}

void append_variants(py::list& variants, const char* ops, const char* device, const char* levels) {
  for (const std::string& op : words(ops)) {
    for (const std::string& level : words(levels)) {
      py::dict entry;
      entry["op"] = op;
      entry["device"] = device;
      entry["level"] = level;
      variants.append(entry);
    }
  }
}

/// One entry per compiled kernel: op stem, device, and instruction set or architecture.
py::list kernel_variants() {
  py::list variants;
  append_variants(variants, HYPERSTREAMS_CPU_OPS, "cpu", HYPERSTREAMS_CPU_LEVELS);
  append_variants(variants, HYPERSTREAMS_CUDA_OPS, "cuda", HYPERSTREAMS_CUDA_ARCHS);
  return variants;
}

DType parse_dtype(const std::string& name) {
  if (name == "float32") return DType::kFloat32;
  if (name == "bfloat16") return DType::kBFloat16;
  if (name == "float16") return DType::kFloat16;
  if (name == "float64") return DType::kFloat64;
  throw std::invalid_argument(
      "plan: dtype: expected 'float32', 'bfloat16', 'float16' or 'float64', got '" + name + "'");
}

py::dict launch(const cuda::LaunchShape& shape) {
  py::dict found;
  found["grid"] = py::make_tuple(shape.grid_x, shape.grid_y);
  found["block"] = py::make_tuple(shape.block_x, shape.block_y);
  found["shared_bytes"] = shape.shared_bytes;
  return found;
}

void add_vectors(py::dict& found, int vector, bool whole) {
  found["vector"] = vector;
  found["whole_vectors"] = whole;
}

/// A backward kernel in which a warp or a block owns a token.
void add_owners(py::dict& found, const cuda::OwnerPlan& owners) {
  found["backward"] = launch(owners.launch);
  found["threads_per_token"] = owners.threads_per_token;
  found["tokens_per_block"] = owners.tokens_per_block;
  found["partials"] = owners.partials;
}

/// Sums over tokens that are rows of channels.
py::dict columns(const cuda::ColumnPlan& plan) {
  py::dict found = launch(plan.launch);
  found["tokens_per_part"] = plan.tokens_per_part;
  found["parts"] = plan.parts;
  return found;
}

struct Sizes {
  int64_t tokens;
  int n_streams;
  int64_t width;
  DType dtype;
  int64_t alignment;
  bool is_static;
};

py::dict plan_read(const Sizes& s) {
  const auto made = cuda::plan_read(s.tokens, s.width, s.dtype, s.alignment, s.is_static);
  py::dict found;
  add_vectors(found, made.vector, made.whole_vectors);
  found["forward"] = launch(made.forward);
  add_owners(found, made.backward);
  return found;
}

py::dict plan_mix_write(const Sizes& s) {
  const auto made = cuda::plan_mix_write(s.tokens, s.width, s.dtype, s.alignment, s.is_static);
  py::dict found;
  add_vectors(found, made.vector, made.whole_vectors);
  found["forward"] = launch(made.forward);
  add_owners(found, made.backward);
  found["grad_bias"] = columns(made.bias);
  return found;
}

py::dict plan_expand(const Sizes& s) {
  const auto made = cuda::plan_expand(s.tokens, s.n_streams, s.width, s.dtype, s.alignment);
  py::dict found;
  add_vectors(found, made.vector, made.whole_vectors);
  found["forward"] = launch(made.tokens);
  found["backward"] = launch(made.tokens);
  found["grad_scale_and_bias"] = columns(made.sums);
  return found;
}

/// For the free map.
py::dict plan_coefficients(const Sizes& s) {
  CoefficientSettings settings = {};
  settings.n_streams = s.n_streams;
  settings.map = MapKind::kFree;
  const auto made = cuda::plan_coefficients(s.tokens, settings);
  py::dict found;
  found["forward"] = launch(made.forward.launch);
  found["backward"] = launch(made.backward.launch);
  found["partials"] = made.partials;
  return found;
}

/// For n (n + 2) logits.
py::dict plan_project(const Sizes& s) {
  const ProjectShape shape{s.tokens, s.n_streams, s.width, s.n_streams * (s.n_streams + 2),
                           s.dtype};
  const auto made = cuda::plan_project(shape, s.alignment);
  const auto backward = cuda::plan_project_backward(shape, s.alignment);
  py::dict found;
  found["whole_vectors"] = made.whole_vectors;
  found["split"] = static_cast<int>(made.split);
  found["forward"] = launch(made.forward);
  found["parts"] = made.parts;
  found["workspace"] = made.workspace;
  found["backward"] = launch(backward.walk);
  found["tokens_per_part"] = backward.tokens_per_part;
  found["partials"] = backward.parts;
  found["backward_workspace"] = backward.workspace;
  return found;
}

py::dict plan_stream_stats(const Sizes& s) {
  const auto made = cuda::plan_stream_stats(s.tokens, s.width, s.dtype, s.alignment);
  py::dict found;
  add_vectors(found, made.vector, made.whole_vectors);
  found["forward"] = launch(made.owners.launch);
  found["threads_per_token"] = made.owners.threads_per_token;
  found["tokens_per_block"] = made.owners.tokens_per_block;
  found["partials"] = made.owners.partials;
  return found;
}

/// For the free map.
py::dict plan_boundary(const Sizes& s) {
  CoefficientSettings settings = {};
  settings.n_streams = s.n_streams;
  settings.map = MapKind::kFree;
  const auto made =
      cuda::plan_boundary(cuda::boundary_shape(s.tokens, s.n_streams, s.width, s.dtype, &settings,
                                               cuda::kMostSharedBytes),
                          s.alignment);
  py::dict found;
  found["fused"] = made.fused;
  found["forward_workspace"] = made.forward.size;
  found["backward_workspace"] = made.backward.size;
  if (!made.fused) return found;
  found["whole_vectors"] = made.whole_vectors;
  found["forward"] = launch(made.write);
  found["parts"] = made.parts;
  found["coefficients"] = launch(made.coefficients.forward.launch);
  found["dots"] = launch(made.dots);
  found["backward"] = launch(made.gradients);
  found["tokens_per_part"] = made.tokens_per_part;
  found["partials"] = made.token_parts;
  return found;
}

constexpr struct {
  const char* op;
  py::dict (*plan)(const Sizes& sizes);
} kPlans[] = {{"read", plan_read},
              {"mix_write", plan_mix_write},
              {"expand", plan_expand},
              {"coefficients", plan_coefficients},
              {"stream_stats", plan_stream_stats},
              {"project", plan_project},
              {"boundary", plan_boundary}};

/// How the CUDA kernels of an op would be launched; needs no GPU.
py::dict plan(const std::string& op, int64_t tokens, int n_streams, int64_t width,
              const std::string& dtype, int64_t alignment, bool is_static) {
  const DType type = parse_dtype(dtype);
  if (tokens < 0 || width < 1 || n_streams < 1 || n_streams > kMaxStreams) {
    throw std::invalid_argument(
        "plan: expected tokens >= 0, n_streams in 1..16 and width >= 1, got " +
        std::to_string(tokens) + ", " + std::to_string(n_streams) + ", " + std::to_string(width));
  }
  std::string known;
  for (const auto& entry : kPlans) {
    if (op == entry.op) return entry.plan({tokens, n_streams, width, type, alignment, is_static});
    known += std::string(known.empty() ? "'" : ", '") + entry.op + "'";
  }
  throw std::invalid_argument("plan: op: expected one of " + known + ", got '" + op + "'");
}

}  // namespace
}  // namespace hyperstreams::info

PYBIND11_MODULE(_info, m) {
  m.doc() = "What hyperstreams was built with. Pure functions, no torch.";
  m.def("build_info", &hyperstreams::info::build_info,
        "Versions, compiler, flags and CUDA architectures of this build, as a dict.");
  m.def("cpu_isa_levels", &hyperstreams::info::cpu_isa_levels,
        "Instruction-set levels in ascending order: dicts of name, compiled, runs_here.");
  m.def("kernel_variants", &hyperstreams::info::kernel_variants,
        "Compiled kernels: dicts of op, device, level.");
  using pybind11::arg;
  m.def("plan", &hyperstreams::info::plan, arg("op"), arg("tokens"), arg("n_streams"), arg("width"),
        arg("dtype"), pybind11::kw_only(), arg("alignment") = 16, arg("is_static") = false,
        "Launch plan of an op's CUDA kernels for given sizes, as a dict; needs no GPU. alignment: "
        "bytes that every row begins at a multiple of. is_static: coefficients without token axes. "
        "Raises ValueError for an op without a plan, an unknown dtype, sizes out of range.");
}
