// Ops that belong to the library as a whole. Each op's schema and CPU kernel are registered in the
// file of its stem.
#include <string>

#include "hyperstreams/isa.h"
#include "tensors.h"

namespace hyperstreams::torch_binding {
namespace {

std::string cpu_isa() { return cpu::isa_name(cpu::isa_level()); }

std::string detected_cpu_isa() { return cpu::isa_name(cpu::detected_isa_level()); }

void set_cpu_isa(const std::string& name) {
  cpu::IsaLevel level;
  STD_TORCH_CHECK(cpu::parse_isa_name(name.c_str(), &level),
                  "set_cpu_isa: name must be 'base', 'avx2' or 'avx512', got '", name, "'");
  cpu::set_isa_cap(level);
}

}  // namespace
}  // namespace hyperstreams::torch_binding

STABLE_TORCH_LIBRARY_FRAGMENT(hyperstreams, m) {
  m.def("_cpu_isa() -> str");
  m.def("_detected_cpu_isa() -> str");
  m.def("_set_cpu_isa(str name) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(hyperstreams, CompositeExplicitAutograd, m) {
  m.impl("_cpu_isa", TORCH_BOX(&hyperstreams::torch_binding::cpu_isa));
  m.impl("_detected_cpu_isa", TORCH_BOX(&hyperstreams::torch_binding::detected_cpu_isa));
  m.impl("_set_cpu_isa", TORCH_BOX(&hyperstreams::torch_binding::set_cpu_isa));
}
