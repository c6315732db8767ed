# build_info.h in the build folder: what the libraries were built with. No paths.
find_package(Git QUIET)
set(HYPERSTREAMS_GIT "")
if(Git_FOUND AND EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/.git")
  execute_process(
    COMMAND "${GIT_EXECUTABLE}" rev-parse --short=12 HEAD WORKING_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}"
    OUTPUT_VARIABLE HYPERSTREAMS_GIT OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  # The log of HEAD changes with every commit and checkout, and configures again.
  execute_process(
    COMMAND "${GIT_EXECUTABLE}" rev-parse --git-path logs/HEAD WORKING_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}"
    OUTPUT_VARIABLE _head_log OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  get_filename_component(_head_log "${_head_log}" ABSOLUTE BASE_DIR "${CMAKE_CURRENT_SOURCE_DIR}")
  if(EXISTS "${_head_log}")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${_head_log}")
  endif()
endif()
string(TOUPPER "${CMAKE_BUILD_TYPE}" _type)
string(STRIP "${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_${_type}}" HYPERSTREAMS_CXX_FLAGS)
string(REPLACE ";" " " HYPERSTREAMS_CPU_LEVEL_NAMES "${HYPERSTREAMS_CPU_LEVELS}")
string(REPLACE ";" " " HYPERSTREAMS_CUDA_ARCH_NAMES "${HYPERSTREAMS_CUDA_BUILT_ARCHS}")
# hyperstreams_stems(<variable> [source ...]): the ops' names, from their kernel files.
function(hyperstreams_stems variable)
  set(_stems "")
  foreach(_source IN LISTS ARGN)
    get_filename_component(_stem "${_source}" NAME_WE)
    if(EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/csrc/include/hyperstreams/${_stem}.h")
      list(APPEND _stems ${_stem})
    endif()
  endforeach()
  string(REPLACE ";" " " _stems "${_stems}")
  set(${variable} "${_stems}" PARENT_SCOPE)
endfunction()
hyperstreams_stems(HYPERSTREAMS_CPU_OPS ${HYPERSTREAMS_CPU_OP_SOURCES})
hyperstreams_stems(HYPERSTREAMS_CUDA_OPS ${HYPERSTREAMS_CUDA_OP_SOURCES})
configure_file("${CMAKE_CURRENT_SOURCE_DIR}/csrc/info/build_info.h.in"
  "${CMAKE_CURRENT_BINARY_DIR}/generated/build_info.h" @ONLY)
