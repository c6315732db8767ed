// The module hyperstreams._info: what was built, and what the kernels would do. Pure functions; the
// ops do not depend on it and it does not depend on torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <sstream>
#include <string>
#include <vector>

#include "build_info.h"
#include "hyperstreams/isa.h"

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

/// One entry per compiled kernel of the CPU library: op stem and level.
py::list kernel_variants() {
  py::list variants;
  for (const std::string& op : words(HYPERSTREAMS_CPU_OPS)) {
    for (const std::string& level : words(HYPERSTREAMS_CPU_LEVELS)) {
      py::dict entry;
      entry["op"] = op;
      entry["device"] = "cpu";
      entry["level"] = level;
      variants.append(entry);
    }
  }
  return variants;
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
}
