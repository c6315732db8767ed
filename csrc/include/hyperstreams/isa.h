// Which instruction-set level the CPU kernels run at.
#pragma once

namespace hyperstreams::cpu {

/// Levels in ascending order. kBase is plain C++ for the architecture's baseline.
enum class IsaLevel : int { kBase = 0, kAvx2 = 1, kAvx512 = 2 };

/// Highest level that this build contains and this processor runs.
IsaLevel detected_isa_level();

/// The level in use: the detected one, capped by the environment variable HYPERSTREAMS_CPU_ISA
/// (base | avx2 | avx512, read once) or by set_isa_cap.
IsaLevel isa_level();

/// Caps the level from now on; a cap above the detected level has no effect.
void set_isa_cap(IsaLevel cap);

/// "base", "avx2" or "avx512".
const char* isa_name(IsaLevel level);

/// Parses a name; returns false and leaves *level alone when it is none of the three.
bool parse_isa_name(const char* name, IsaLevel* level);

}  // namespace hyperstreams::cpu
