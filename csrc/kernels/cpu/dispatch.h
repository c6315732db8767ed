// How one kernel source becomes three ISA levels, and how dtype and n become compile-time
// constants.
//
// Every <op>.cpp beside this file is compiled once per level with HYPERSTREAMS_ISA_NAMESPACE set to
// isa_base, isa_avx2 or isa_avx512. All of its code lives in that namespace (an inline function
// shared by levels could be linked from the widest one and crash an older processor). The base
// compilation also emits the public entry, which picks the level at run time.
#pragma once

#include <type_traits>

#include "hyperstreams/common.h"
#include "hyperstreams/isa.h"

#ifdef HYPERSTREAMS_X86_LEVELS
#define HYPERSTREAMS_DECLARE_LEVELS(name, Args) \
  namespace isa_base {                          \
  void name(const Args&, ParallelFor);          \
  }                                             \
  namespace isa_avx2 {                          \
  void name(const Args&, ParallelFor);          \
  }                                             \
  namespace isa_avx512 {                        \
  void name(const Args&, ParallelFor);          \
  }
#define HYPERSTREAMS_CALL_LEVEL(name, args, parallel_for) \
  switch (isa_level()) {                                  \
    case IsaLevel::kAvx512:                               \
      return isa_avx512::name(args, parallel_for);        \
    case IsaLevel::kAvx2:                                 \
      return isa_avx2::name(args, parallel_for);          \
    case IsaLevel::kBase:                                 \
      return isa_base::name(args, parallel_for);          \
  }
#else
#define HYPERSTREAMS_DECLARE_LEVELS(name, Args) \
  namespace isa_base {                          \
  void name(const Args&, ParallelFor);          \
  }
#define HYPERSTREAMS_CALL_LEVEL(name, args, parallel_for) isa_base::name(args, parallel_for);
#endif

/// Placed once per kernel at namespace scope of hyperstreams::cpu, after the kernel's definition.
#ifdef HYPERSTREAMS_ISA_IS_BASE
#define HYPERSTREAMS_CPU_ENTRY(name, Args)                \
  HYPERSTREAMS_DECLARE_LEVELS(name, Args)                 \
  void name(const Args& args, ParallelFor parallel_for) { \
    HYPERSTREAMS_CALL_LEVEL(name, args, parallel_for)     \
  }
#else
#define HYPERSTREAMS_CPU_ENTRY(name, Args)
#endif

namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE {

template <int kN>
struct StaticStreams {
  static constexpr int value = kN;
};

/// Whether kernels on streams of type S are compiled for single stream counts. Not for double
/// (gradient checks), and not at the base level of an x86 build (processors before AVX2): there
/// the size and build time of the library count for more.
#if defined(HYPERSTREAMS_ISA_IS_BASE) && defined(HYPERSTREAMS_X86_LEVELS)
template <class S>
constexpr bool kStaticStreams = false;
#else
template <class S>
constexpr bool kStaticStreams = !std::is_same_v<S, double>;
#endif

/// Calls f(StaticStreams<kN>{}) with the compiled stream counts; others get 0, for which kernels
/// use the run-time count.
template <class S, class F>
inline void dispatch_streams(int n_streams, F&& f) {
  if constexpr (kStaticStreams<S>) {
    switch (n_streams) {
      case 1:
        return f(StaticStreams<1>{});
      case 2:
        return f(StaticStreams<2>{});
      case 3:
        return f(StaticStreams<3>{});
      case 4:
        return f(StaticStreams<4>{});
      case 8:
        return f(StaticStreams<8>{});
    }
  }
  f(StaticStreams<0>{});
}

template <class T>
struct TypeTag {
  using type = T;
};

struct BFloat16 {
  uint16_t bits;
};

struct Float16 {
  uint16_t bits;
};

/// Calls f(TypeTag<storage type>{}).
template <class F>
inline void dispatch_dtype(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kFloat32:
      return f(TypeTag<float>{});
    case DType::kBFloat16:
      return f(TypeTag<BFloat16>{});
    case DType::kFloat16:
      return f(TypeTag<Float16>{});
    case DType::kFloat64:
      return f(TypeTag<double>{});
  }
}

/// Bytes of one element.
inline int64_t size_of(DType dtype) {
  int64_t size = 0;
  dispatch_dtype(dtype, [&](auto tag) { size = sizeof(typename decltype(tag)::type); });
  return size;
}

/// Runs body(begin, end) over [0, tasks) through the caller's threads.
template <class Body>
inline void parallel(ParallelFor parallel_for, int64_t tasks, int64_t grain, const Body& body) {
  if (tasks <= 0) return;
  if (tasks <= grain) {
    body(int64_t{0}, tasks);
    return;
  }
  parallel_for(
      tasks, grain,
      [](int64_t begin, int64_t end, void* context) {
        (*static_cast<const Body*>(context))(begin, end);
      },
      const_cast<void*>(static_cast<const void*>(&body)));
}

/// Tokens per task such that a task touches about 32 KiB.
inline int64_t token_grain(int64_t bytes_per_token) {
  const int64_t grain = 32768 / (bytes_per_token > 0 ? bytes_per_token : 1);
  return grain > 0 ? grain : 1;
}

}  // namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE
