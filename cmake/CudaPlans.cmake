# hyperstreams_plans: launch plans of the CUDA kernels, plain C++ that needs no nvcc.
file(GLOB _plan_sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/csrc/kernels/cuda/plan/*.cpp")
add_library(hyperstreams_plans STATIC ${_plan_sources})
target_link_libraries(hyperstreams_plans PRIVATE hyperstreams_options PUBLIC hyperstreams_common)
target_include_directories(hyperstreams_plans PUBLIC "${CMAKE_CURRENT_SOURCE_DIR}/csrc/include")
