# One GoogleTest program over all tests/cpp/test_*.cpp.
include(FindOrFetchGoogleTest)
include(CudaEmulation)
file(GLOB _test_sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/tests/cpp/test_*.cpp")
add_executable(hyperstreams_tests ${_test_sources})
target_include_directories(hyperstreams_tests PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}/tests/cpp")
target_link_libraries(hyperstreams_tests PRIVATE
  hyperstreams_options hyperstreams_cpu hyperstreams_cuda_emulated GTest::gtest_main)
gtest_discover_tests(hyperstreams_tests DISCOVERY_MODE PRE_TEST)
