# hyperstreams_cuda_emulated: every csrc/kernels/cuda/*.cu as host C++, each CUDA thread a fiber, for tests.
# A wrapper includes the .cu, because the same file may be compiled by nvcc in this build.
file(GLOB _kernel_sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/csrc/kernels/cuda/*.cu")
set(_emulated_sources "")
foreach(_kernel IN LISTS _kernel_sources)
  get_filename_component(_stem "${_kernel}" NAME_WE)
  set(_wrapper "${CMAKE_CURRENT_BINARY_DIR}/generated/emulated_${_stem}.cpp")
  file(CONFIGURE OUTPUT "${_wrapper}" CONTENT "#include \"${_kernel}\"\n" @ONLY)
  list(APPEND _emulated_sources "${_wrapper}")
endforeach()
file(GLOB _emulation_sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/csrc/kernels/cuda/emulation/*.cpp")
add_library(hyperstreams_cuda_emulated STATIC ${_emulated_sources} ${_emulation_sources})
target_link_libraries(hyperstreams_cuda_emulated PRIVATE hyperstreams_options PUBLIC hyperstreams_plans)
target_include_directories(hyperstreams_cuda_emulated PUBLIC "${CMAKE_CURRENT_SOURCE_DIR}/csrc")
# Explicit fma only, as on the CPU. The unroll pragmas are nvcc's; without unrolling, GCC does not see
# that registers of absent streams are never read. Compile time counts here, speed does not.
target_compile_options(hyperstreams_cuda_emulated
  PUBLIC -ffp-contract=off -Wno-unknown-pragmas PRIVATE -O1 -Wno-maybe-uninitialized)
