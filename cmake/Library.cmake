# hyperstreams_library(<target> [exported symbol ...]): what every library of the wheel has in common:
# it exports the named symbols alone, holds no path of the machine that built it, and is installed
# beside the Python files (or, with HYPERSTREAMS_INPLACE, built there).
function(hyperstreams_library target)
  set(_script "${CMAKE_CURRENT_BINARY_DIR}/generated/${target}.map")
  set(_exports "")
  foreach(_symbol IN LISTS ARGN)
    string(APPEND _exports "global: ${_symbol}; ")
  endforeach()
  file(WRITE "${_script}.new" "{ ${_exports}local: *; };\n")
  configure_file("${_script}.new" "${_script}" COPYONLY)
  target_link_options(${target} PRIVATE
    LINKER:--version-script=${_script} LINKER:--exclude-libs,ALL LINKER:--as-needed LINKER:-z,relro)
  set_property(TARGET ${target} APPEND PROPERTY LINK_DEPENDS "${_script}")
  install(TARGETS ${target} LIBRARY DESTINATION hyperstreams)
  if(HYPERSTREAMS_INPLACE)
    set_target_properties(${target} PROPERTIES
      LIBRARY_OUTPUT_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}/python/hyperstreams")
  endif()
endfunction()
