# Generated headers: headwise_version.h for the library, headwise_build_info.h for the laboratory.
# The second is checked at every build (one git call) and rewritten only when it would differ.

configure_file("${PROJECT_SOURCE_DIR}/cmake/headwise_version.h.in"
  "${PROJECT_BINARY_DIR}/generated/headwise_version.h" @ONLY)

find_package(Git QUIET)
string(TOUPPER "${CMAKE_BUILD_TYPE}" config)
string(STRIP "${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_${config}}" flags)
string(REGEX REPLACE " +" " " flags "${flags}")
add_custom_target(headwise_build_info
  COMMAND "${CMAKE_COMMAND}"
    "-DSOURCE=${PROJECT_SOURCE_DIR}"
    "-DTEMPLATE=${PROJECT_SOURCE_DIR}/cmake/headwise_build_info.h.in"
    "-DOUT=${PROJECT_BINARY_DIR}/generated/headwise_build_info.h"
    "-DGIT=${GIT_EXECUTABLE}"
    "-DBUILD_TYPE=${CMAKE_BUILD_TYPE}"
    "-DCOMPILER=${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}"
    "-DCOMPILER_FLAGS=${flags}"
    -P "${PROJECT_SOURCE_DIR}/cmake/write_build_info.cmake"
  BYPRODUCTS "${PROJECT_BINARY_DIR}/generated/headwise_build_info.h"
  COMMENT "Checking the build information" VERBATIM)
