# _C: schemas and CPU ops on the stable ABI, one file per op.
file(GLOB _binding_sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/csrc/torch/*.cpp")
add_library(_C MODULE ${_binding_sources})
# As one source: most of their time is PyTorch's headers.
set_target_properties(_C PROPERTIES PREFIX "" OUTPUT_NAME "_C" SUFFIX ".so" UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 0)
target_link_libraries(_C PRIVATE hyperstreams_options hyperstreams_cpu torch_stable)
# The bindings check and hand over; the loops are in hyperstreams_cpu.
target_compile_options(_C PRIVATE -Wno-unused-parameter -O1)
target_link_options(_C PRIVATE LINKER:-z,defs)
hyperstreams_library(_C)
