# _C_cuda: CUDA kernels (nvcc, no torch) and their bindings (host compiler, stable ABI). No GPU and no
# CUDA torch are needed to build it. HYPERSTREAMS_CUDA: ON, OFF, or AUTO, which builds it with nvcc for a
# CUDA torch. Sets HYPERSTREAMS_CUDA_TOOLKIT and HYPERSTREAMS_CUDA_BUILT_ARCHS, empty when not built.
set(HYPERSTREAMS_CUDA_SPILLS WARN CACHE STRING
  "What a register spill, or stack above its limit, in a CUDA kernel is: WARN or ERROR")
set_property(CACHE HYPERSTREAMS_CUDA_SPILLS PROPERTY STRINGS WARN ERROR)
option(HYPERSTREAMS_CUDA_LINEINFO "Source lines for profilers; puts absolute paths into the library" OFF)
set(HYPERSTREAMS_CUDA_TOOLKIT "")
set(HYPERSTREAMS_CUDA_BUILT_ARCHS "")

if(NOT HYPERSTREAMS_CUDA OR (HYPERSTREAMS_CUDA STREQUAL "AUTO" AND NOT HYPERSTREAMS_TORCH_CUDA))
  message(STATUS "_C_cuda: not built (HYPERSTREAMS_CUDA=${HYPERSTREAMS_CUDA}, CUDA of torch: '${HYPERSTREAMS_TORCH_CUDA}')")
  return()
endif()
if(DEFINED ENV{CUDACXX})
  set(HYPERSTREAMS_NVCC "$ENV{CUDACXX}" CACHE FILEPATH "CUDA compiler")
endif()
find_program(HYPERSTREAMS_NVCC nvcc HINTS "$ENV{CUDA_HOME}/bin" /usr/local/cuda/bin DOC "CUDA compiler")
if(NOT HYPERSTREAMS_NVCC)
  if(HYPERSTREAMS_CUDA STREQUAL "AUTO")
    message(STATUS "_C_cuda: not built, because nvcc was not found")
    return()
  endif()
  message(FATAL_ERROR
    "HYPERSTREAMS_CUDA=ON needs nvcc, which was not found.\n"
    "Put it on PATH or set CUDA_HOME, or configure with -DHYPERSTREAMS_CUDA=OFF.")
endif()

# One line first: some toolkits cannot compile anything against some C libraries, and say so at length.
if(NOT HYPERSTREAMS_NVCC_WORKS STREQUAL HYPERSTREAMS_NVCC)
  set(_probe "${CMAKE_CURRENT_BINARY_DIR}/generated/probe.cu")
  file(WRITE "${_probe}" "__global__ void probe() {}\n")
  execute_process(
    COMMAND "${HYPERSTREAMS_NVCC}" -ccbin "${CMAKE_CXX_COMPILER}" -c "${_probe}" -o "${_probe}.o"
    RESULT_VARIABLE _result ERROR_VARIABLE _errors OUTPUT_VARIABLE _errors)
  if(NOT _result EQUAL 0)
    if(_errors MATCHES "exception specification")
      set(_errors "CUDA before 13.2 does not compile against glibc 2.42 or newer (math_functions.h): use a newer \
CUDA toolkit or an older system image.")
    endif()
    message(FATAL_ERROR "${HYPERSTREAMS_NVCC} cannot compile an empty kernel.\n${_errors}")
  endif()
  set(HYPERSTREAMS_NVCC_WORKS "${HYPERSTREAMS_NVCC}" CACHE INTERNAL "nvcc that has compiled an empty kernel")
endif()

set(CMAKE_CUDA_COMPILER "${HYPERSTREAMS_NVCC}" CACHE FILEPATH "CUDA compiler")
set(CMAKE_CUDA_HOST_COMPILER "${CMAKE_CXX_COMPILER}" CACHE FILEPATH "Host compiler of nvcc")
set(CMAKE_CUDA_ARCHITECTURES ${HYPERSTREAMS_CUDA_ARCHS})
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
set(HYPERSTREAMS_CUDA_TOOLKIT "${CMAKE_CUDA_COMPILER_VERSION}")
set(HYPERSTREAMS_CUDA_BUILT_ARCHS ${HYPERSTREAMS_CUDA_ARCHS})
message(STATUS "_C_cuda: CUDA ${HYPERSTREAMS_CUDA_TOOLKIT} for ${HYPERSTREAMS_CUDA_ARCHS}")

file(GLOB HYPERSTREAMS_CUDA_OP_SOURCES CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/csrc/kernels/cuda/*.cu")
add_library(hyperstreams_cuda STATIC ${HYPERSTREAMS_CUDA_OP_SOURCES})
target_link_libraries(hyperstreams_cuda PUBLIC hyperstreams_plans PRIVATE CUDA::cudart_static)
# Fused where the source says fma and nowhere else, as on the host: the bits that the emulation tests.
target_compile_options(hyperstreams_cuda PRIVATE -fmad=false
  $<$<BOOL:${HYPERSTREAMS_CUDA_LINEINFO}>:-lineinfo> --threads=0 -Xfatbin=-compress-all -Xptxas=-v,--warn-on-spills
  -Xcompiler=-Wall,-ffile-prefix-map=${CMAKE_CURRENT_SOURCE_DIR}/=)
if(HYPERSTREAMS_CUDA_SPILLS STREQUAL "ERROR")
  target_compile_options(hyperstreams_cuda PRIVATE -Xptxas=-Werror)
endif()
# nvcc's output is a table of registers, shared memory, stack and spills: kept in cuda_resources/, one file
# a source, and checked against the limits.
find_package(Python COMPONENTS Interpreter REQUIRED)
set(_resources "${CMAKE_CURRENT_SOURCE_DIR}/_build/cuda_resources.py")
set(_limits "${CMAKE_CURRENT_SOURCE_DIR}/csrc/kernels/cuda/stack_limits.txt")
set_property(TARGET hyperstreams_cuda PROPERTY RULE_LAUNCH_COMPILE
  "${Python_EXECUTABLE} ${_resources} --folder ${CMAKE_CURRENT_BINARY_DIR}/cuda_resources --limits ${_limits} \
$<$<STREQUAL:${HYPERSTREAMS_CUDA_SPILLS},ERROR>:--error> --")
set_property(SOURCE ${HYPERSTREAMS_CUDA_OP_SOURCES} APPEND PROPERTY OBJECT_DEPENDS "${_resources};${_limits}")

file(GLOB _binding_sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/csrc/torch/cuda/*.cpp")
add_library(_C_cuda MODULE ${_binding_sources})
set_target_properties(_C_cuda PROPERTIES PREFIX "" OUTPUT_NAME "_C_cuda" SUFFIX ".so" LINKER_LANGUAGE CXX)
target_include_directories(_C_cuda PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}/csrc/torch")
target_compile_definitions(_C_cuda PRIVATE USE_CUDA)
target_link_libraries(_C_cuda PRIVATE
  hyperstreams_options hyperstreams_cuda torch_stable CUDA::cudart_static)
target_compile_options(_C_cuda PRIVATE -Wno-unused-parameter)
hyperstreams_library(_C_cuda)
