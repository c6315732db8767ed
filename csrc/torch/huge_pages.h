// Large outputs on huge pages, where the system leaves that to the program.
#pragma once

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <cstddef>
#include <cstdint>

namespace hyperstreams::torch_binding {

/// Asks for 2 MiB pages behind `bytes` of memory that is about to be written. A fresh tensor costs
/// one page fault for every 4 KiB otherwise, which takes longer than the kernel that fills it.
/// Advice only: no value depends on it, and a system that knows no such pages ignores it.
inline void advise_huge_pages(void* data, size_t bytes) {
#ifdef __linux__
  constexpr uintptr_t kPage = uintptr_t{1} << 21;
  constexpr size_t kLeast = size_t{4} << 20;
  if (bytes < kLeast) return;
  const auto address = reinterpret_cast<uintptr_t>(data);
  const uintptr_t begin = (address + kPage - 1) / kPage * kPage;
  const uintptr_t end = (address + bytes) / kPage * kPage;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

}  // namespace hyperstreams::torch_binding
