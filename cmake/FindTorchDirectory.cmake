# Sets HYPERSTREAMS_TORCH_DIR to an installed torch that has the stable C++ API (>= 2.11), found as files:
# torch is never imported, and a CPU torch serves CUDA builds too. Also sets HYPERSTREAMS_TORCH_VERSION and
# HYPERSTREAMS_TORCH_CUDA (the CUDA version that torch was built with, or empty).
set(HYPERSTREAMS_TORCH_DIR "$ENV{HYPERSTREAMS_TORCH_DIR}" CACHE PATH "Directory of the installed torch package")

if(HYPERSTREAMS_TORCH_DIR AND NOT EXISTS "${HYPERSTREAMS_TORCH_DIR}/include")
  unset(HYPERSTREAMS_TORCH_DIR CACHE) # a cached folder that has gone
endif()
if(NOT HYPERSTREAMS_TORCH_DIR)
  find_package(Python COMPONENTS Interpreter REQUIRED)
  execute_process(
    COMMAND "${Python_EXECUTABLE}" "${CMAKE_CURRENT_SOURCE_DIR}/_build/find_torch.py"
    OUTPUT_VARIABLE _found OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_VARIABLE _missing)
  if(NOT _found)
    message(FATAL_ERROR
      "${_missing}For the torch-free kernels and their tests alone: -DHYPERSTREAMS_TORCH=OFF")
  endif()
  set(HYPERSTREAMS_TORCH_DIR "${_found}" CACHE PATH "Directory of the installed torch package" FORCE)
endif()

set(_version_header "${HYPERSTREAMS_TORCH_DIR}/include/torch/headeronly/version.h")
if(NOT EXISTS "${_version_header}"
   OR NOT EXISTS "${HYPERSTREAMS_TORCH_DIR}/include/torch/csrc/stable/library.h")
  message(FATAL_ERROR "HYPERSTREAMS_TORCH_DIR: ${HYPERSTREAMS_TORCH_DIR} holds no torch >= 2.11")
endif()

file(STRINGS "${_version_header}" _lines REGEX "#define TORCH_VERSION_(MAJOR|MINOR) ")
string(REGEX REPLACE ".*MAJOR ([0-9]+).*MINOR ([0-9]+).*" "\\1.\\2" HYPERSTREAMS_TORCH_VERSION "${_lines}")
if(HYPERSTREAMS_TORCH_VERSION VERSION_LESS 2.11)
  message(FATAL_ERROR "hyperstreams needs torch >= 2.11, found ${HYPERSTREAMS_TORCH_VERSION} in ${HYPERSTREAMS_TORCH_DIR}")
endif()
file(STRINGS "${HYPERSTREAMS_TORCH_DIR}/version.py" _cuda REGEX "^cuda.*= *'")
string(REGEX REPLACE ".*'([^']*)'.*" "\\1" HYPERSTREAMS_TORCH_CUDA "${_cuda}")
message(STATUS "torch ${HYPERSTREAMS_TORCH_VERSION} (CUDA: ${HYPERSTREAMS_TORCH_CUDA}) in ${HYPERSTREAMS_TORCH_DIR}")

add_library(torch_stable INTERFACE)
target_include_directories(torch_stable SYSTEM INTERFACE "${HYPERSTREAMS_TORCH_DIR}/include")
target_compile_definitions(torch_stable INTERFACE TORCH_TARGET_VERSION=0x020b000000000000)
# Its headers carry __FILE__ into messages.
target_compile_options(torch_stable INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-ffile-prefix-map=${HYPERSTREAMS_TORCH_DIR}/include/=>)
target_link_options(torch_stable INTERFACE LINKER:--no-as-needed)
target_link_libraries(torch_stable INTERFACE
  "${HYPERSTREAMS_TORCH_DIR}/lib/libtorch_cpu.so" "${HYPERSTREAMS_TORCH_DIR}/lib/libtorch.so")
