# _info: the pybind11 module. Needs Python's headers and pybind11, no torch.
find_package(Python COMPONENTS Interpreter Development.Module REQUIRED)
if(NOT pybind11_DIR)
  execute_process(
    COMMAND "${Python_EXECUTABLE}" -m pybind11 --cmakedir
    OUTPUT_VARIABLE _pybind11_dir OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(_pybind11_dir)
    set(pybind11_DIR "${_pybind11_dir}" CACHE PATH "Directory of pybind11Config.cmake")
  endif()
endif()
set(PYBIND11_FINDPYTHON ON)
find_package(pybind11 2.13 CONFIG REQUIRED)

include(BuildInfo)
pybind11_add_module(_info MODULE NO_EXTRAS "${CMAKE_CURRENT_SOURCE_DIR}/csrc/info/info.cpp")
target_include_directories(_info PRIVATE "${CMAKE_CURRENT_BINARY_DIR}/generated")
target_link_libraries(_info PRIVATE hyperstreams_options hyperstreams_cpu hyperstreams_plans)
# Nothing in it is hot: half the time to compile.
target_compile_options(_info PRIVATE -O1)
hyperstreams_library(_info PyInit__info)
