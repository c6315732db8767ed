# hyperstreams_cuda_tests: the tests of the CUDA kernels, on a GPU instead of the emulation. It is built
# without one and carried: the CUDA runtime and the C++ library are linked statically.
# A wrapper puts on_device/<op>.h, which moves operands to the device, in front of test_cuda_<op>.cpp.
include(FindOrFetchGoogleTest)
set(_folder "${CMAKE_CURRENT_SOURCE_DIR}/tests/cpp")
file(GLOB _moves CONFIGURE_DEPENDS "${_folder}/on_device/*.h")
list(FILTER _moves EXCLUDE REGEX "/device_call\\.h$")
set(_test_sources "${_folder}/on_device/device_call.cpp" "${_folder}/on_device/main.cpp")
foreach(_move IN LISTS _moves)
  get_filename_component(_stem "${_move}" NAME_WE)
  set(_wrapper "${CMAKE_CURRENT_BINARY_DIR}/generated/on_device_${_stem}.cpp")
  file(CONFIGURE OUTPUT "${_wrapper}" @ONLY
    CONTENT "#include \"${_move}\"\n#include \"${_folder}/test_cuda_${_stem}.cpp\"\n")
  list(APPEND _test_sources "${_wrapper}")
endforeach()
add_executable(hyperstreams_cuda_tests EXCLUDE_FROM_ALL ${_test_sources})
target_include_directories(hyperstreams_cuda_tests PRIVATE "${_folder}" "${CMAKE_CURRENT_SOURCE_DIR}/csrc")
target_link_libraries(hyperstreams_cuda_tests PRIVATE
  hyperstreams_options hyperstreams_cuda hyperstreams_cpu GTest::gtest CUDA::cudart_static)
# As hyperstreams_tests has it: the expected values are computed with explicit fma only.
target_compile_options(hyperstreams_cuda_tests PRIVATE -O1 -ffp-contract=off -Wno-unknown-pragmas)
target_link_options(hyperstreams_cuda_tests PRIVATE -static-libstdc++ -static-libgcc)
