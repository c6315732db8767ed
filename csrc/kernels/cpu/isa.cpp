#include "hyperstreams/isa.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace hyperstreams::cpu {
namespace {

IsaLevel detect() {
#ifdef HYPERSTREAMS_X86_LEVELS
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq");
  if (avx512) return IsaLevel::kAvx512;
  if (avx2) return IsaLevel::kAvx2;
#endif
  return IsaLevel::kBase;
}

IsaLevel initial_level() {
  IsaLevel cap = IsaLevel::kAvx512;
  if (const char* name = std::getenv("HYPERSTREAMS_CPU_ISA")) parse_isa_name(name, &cap);
  const IsaLevel detected = detected_isa_level();
  return cap < detected ? cap : detected;
}

std::atomic<IsaLevel>& current_level() {
  static std::atomic<IsaLevel> level{initial_level()};
  return level;
}

}  // namespace

IsaLevel detected_isa_level() {
  static const IsaLevel level = detect();
  return level;
}

IsaLevel isa_level() { return current_level().load(std::memory_order_relaxed); }

void set_isa_cap(IsaLevel cap) {
  const IsaLevel detected = detected_isa_level();
  current_level().store(cap < detected ? cap : detected, std::memory_order_relaxed);
}

const char* isa_name(IsaLevel level) {
  switch (level) {
    case IsaLevel::kAvx512:
      return "avx512";
    case IsaLevel::kAvx2:
      return "avx2";
    case IsaLevel::kBase:
      break;
  }
  return "base";
}

bool parse_isa_name(const char* name, IsaLevel* level) {
  for (const IsaLevel candidate : {IsaLevel::kBase, IsaLevel::kAvx2, IsaLevel::kAvx512}) {
    if (std::strcmp(name, isa_name(candidate)) == 0) {
      *level = candidate;
      return true;
    }
  }
  return false;
}

}  // namespace hyperstreams::cpu
