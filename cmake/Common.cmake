# hyperstreams_common: what the contract promises beside ops, for both back ends.
file(GLOB _common_sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/csrc/kernels/common/*.cpp")
add_library(hyperstreams_common STATIC ${_common_sources})
target_link_libraries(hyperstreams_common PRIVATE hyperstreams_options)
target_include_directories(hyperstreams_common PUBLIC "${CMAKE_CURRENT_SOURCE_DIR}/csrc/include")
