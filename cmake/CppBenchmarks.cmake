# One Google Benchmark program over all benchmarks/cpp/benchmark_*.cpp: the torch-free kernels, one thread.
find_package(benchmark CONFIG QUIET)
if(NOT benchmark_FOUND)
  message(FATAL_ERROR
    "HYPERSTREAMS_BENCHMARKS=ON needs Google Benchmark, which was not found.\n"
    "Install it (Debian, Ubuntu: apt-get install libbenchmark-dev), or put its prefix into CMAKE_PREFIX_PATH.")
endif()
file(GLOB _benchmark_sources CONFIGURE_DEPENDS
  "${CMAKE_CURRENT_SOURCE_DIR}/benchmarks/cpp/benchmark_*.cpp")
add_executable(hyperstreams_benchmarks ${_benchmark_sources})
target_include_directories(hyperstreams_benchmarks PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}/benchmarks/cpp")
target_link_libraries(hyperstreams_benchmarks PRIVATE
  hyperstreams_options hyperstreams_cpu benchmark::benchmark_main)
