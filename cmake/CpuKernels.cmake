# hyperstreams_cpu: every csrc/kernels/cpu/<op>.cpp compiled once per ISA level. An op is added by adding its file.
file(GLOB HYPERSTREAMS_CPU_OP_SOURCES CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/csrc/kernels/cpu/*.cpp")
list(FILTER HYPERSTREAMS_CPU_OP_SOURCES EXCLUDE REGEX "/isa\\.cpp$")

set(HYPERSTREAMS_CPU_LEVELS base)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
  list(APPEND HYPERSTREAMS_CPU_LEVELS avx2 avx512)
endif()
set(_flags_base "")
if(HYPERSTREAMS_CPU_LEVELS MATCHES avx2 AND NOT HYPERSTREAMS_SANITIZE)
  # On x86 the base level is for processors without AVX2; -O3 would triple its build time.
  set(_flags_base -O2)
endif()
set(_flags_avx2 -mavx2 -mfma -mf16c)
set(_flags_avx512 -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512dq
    -mprefer-vector-width=512
    # GCC 12 warns inside its own AVX-512 intrinsics (their "undefined" operand).
    -Wno-uninitialized -Wno-maybe-uninitialized)

add_library(hyperstreams_cpu STATIC "${CMAKE_CURRENT_SOURCE_DIR}/csrc/kernels/cpu/isa.cpp")
target_link_libraries(hyperstreams_cpu PRIVATE hyperstreams_options PUBLIC hyperstreams_common)
target_include_directories(hyperstreams_cpu PUBLIC "${CMAKE_CURRENT_SOURCE_DIR}/csrc/include")
list(LENGTH HYPERSTREAMS_CPU_LEVELS _level_count)
if(_level_count GREATER 1)
  target_compile_definitions(hyperstreams_cpu PRIVATE HYPERSTREAMS_X86_LEVELS)
endif()

foreach(_level IN LISTS HYPERSTREAMS_CPU_LEVELS)
  string(TOUPPER ${_level} _upper)
  add_library(hyperstreams_cpu_${_level} OBJECT ${HYPERSTREAMS_CPU_OP_SOURCES})
  target_link_libraries(hyperstreams_cpu_${_level} PRIVATE hyperstreams_options)
  target_include_directories(hyperstreams_cpu_${_level} PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}/csrc/include")
  target_compile_definitions(hyperstreams_cpu_${_level} PRIVATE
    HYPERSTREAMS_ISA_NAMESPACE=isa_${_level} HYPERSTREAMS_ISA_IS_${_upper})
  if(_level_count GREATER 1)
    target_compile_definitions(hyperstreams_cpu_${_level} PRIVATE HYPERSTREAMS_X86_LEVELS)
  endif()
  # Explicit fma only: contraction would differ between levels.
  target_compile_options(hyperstreams_cpu_${_level} PRIVATE -ffp-contract=off ${_flags_${_level}})
  target_sources(hyperstreams_cpu PRIVATE $<TARGET_OBJECTS:hyperstreams_cpu_${_level}>)
endforeach()
