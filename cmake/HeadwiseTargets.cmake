# The library, the laboratory and the program. Files are found by folder, so that a new kernel,
# command or case is one new file.

include(embed_text)
find_package(OpenMP REQUIRED COMPONENTS CXX)

# Settings of every target. No instruction-set flag on any file: kernels name theirs by target
# region, and the processor is asked at run time.
function(headwise_settings target)
  target_compile_features(${target} PUBLIC cxx_std_20)
  set_target_properties(${target} PROPERTIES
    CXX_EXTENSIONS OFF
    CXX_VISIBILITY_PRESET hidden
    VISIBILITY_INLINES_HIDDEN ON
    POSITION_INDEPENDENT_CODE ON)
  target_compile_options(${target} PRIVATE
    -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Wcast-qual -Wextra-semi -Wundef
    # g++ 12 misreads std::string's operator+ (its bug 105651).
    $<$<AND:$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-restrict>
    $<$<BOOL:${HEADWISE_WERROR}>:-Werror>)
endfunction()

# Fills `out` with the .cpp files of the named folders of src/; configures again when one comes or goes.
function(headwise_sources out)
  set(found)
  foreach(folder IN LISTS ARGN)
    file(GLOB_RECURSE files CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/${folder}/*.cpp")
    list(APPEND found ${files})
  endforeach()
  if(NOT found)
    # A static library of no files is an error; this keeps a folder that is still empty buildable.
    set(placeholder "${PROJECT_BINARY_DIR}/generated/empty.cpp")
    if(NOT EXISTS "${placeholder}")
      file(WRITE "${placeholder}" "")
    endif()
    set(found "${placeholder}")
  endif()
  set(${out} "${found}" PARENT_SCOPE)
endfunction()

function(headwise_add_library)
  headwise_sources(sources core attention cpu dispatch)
  if(NOT HEADWISE_CUDA AND EXISTS "${PROJECT_SOURCE_DIR}/src/cuda/absent.cpp")
    list(APPEND sources "${PROJECT_SOURCE_DIR}/src/cuda/absent.cpp")
  endif()

  # One compilation serves both the library that is installed and, in a shared build, the static
  # one that the laboratory links: it uses parts that the shared library does not export.
  add_library(headwise_objects OBJECT ${sources})
  headwise_settings(headwise_objects)
  target_include_directories(headwise_objects
    PUBLIC "${PROJECT_SOURCE_DIR}/include" "${PROJECT_SOURCE_DIR}/src"
    PRIVATE "${PROJECT_BINARY_DIR}/generated")
  if(HEADWISE_AMX_SOFTWARE)
    target_compile_definitions(headwise_objects PRIVATE HEADWISE_AMX_SOFTWARE)
  endif()

  # OpenMP stands behind core::parallel_for and nowhere else.
  set(openmp_flags ${OpenMP_CXX_FLAGS})
  separate_arguments(openmp_flags)
  set_source_files_properties("${PROJECT_SOURCE_DIR}/src/core/parallel_for.cpp" PROPERTIES
    COMPILE_OPTIONS "${openmp_flags}")
  # Kernels are worth -O3 whatever the build type optimises for, short of Debug.
  file(GLOB_RECURSE kernels CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/cpu/*.cpp")
  set_source_files_properties(${kernels} PROPERTIES COMPILE_OPTIONS "$<$<NOT:$<CONFIG:Debug>>:-O3>")

  add_library(headwise $<TARGET_OBJECTS:headwise_objects>)
  add_library(headwise::headwise ALIAS headwise)
  set_target_properties(headwise PROPERTIES
    VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}
    LINKER_LANGUAGE CXX)
  target_compile_features(headwise PUBLIC cxx_std_20)
  target_include_directories(headwise INTERFACE
    "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>"
    "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
  target_link_libraries(headwise PRIVATE $<LINK_ONLY:OpenMP::OpenMP_CXX>)

  if(BUILD_SHARED_LIBS)
    add_library(headwise_internal STATIC $<TARGET_OBJECTS:headwise_objects>)
    set_target_properties(headwise_internal PROPERTIES LINKER_LANGUAGE CXX)
    target_link_libraries(headwise_internal PRIVATE $<LINK_ONLY:OpenMP::OpenMP_CXX>)
  else()
    add_library(headwise_internal INTERFACE)
    target_link_libraries(headwise_internal INTERFACE headwise)
  endif()
  target_compile_features(headwise_internal INTERFACE cxx_std_20)
  target_include_directories(headwise_internal INTERFACE
    "${PROJECT_SOURCE_DIR}/include" "${PROJECT_SOURCE_DIR}/src")
endfunction()

function(headwise_add_laboratory)
  foreach(package IN ITEMS fmt CLI11 nlohmann_json)
    find_package(${package} QUIET)
    if(NOT ${package}_FOUND)
      message(FATAL_ERROR "the program needs ${package}: run tools/setup.sh, or configure with -DHEADWISE_BENCH=OFF -DHEADWISE_TESTS=OFF for the library alone")
    endif()
  endforeach()

  headwise_sources(oracle_sources oracle)
  add_library(headwise_oracle STATIC ${oracle_sources})
  headwise_settings(headwise_oracle)
  target_link_libraries(headwise_oracle PUBLIC headwise_internal)

  headwise_sources(lab_sources lab)
  add_library(headwise_lab STATIC ${lab_sources})
  headwise_settings(headwise_lab)
  target_include_directories(headwise_lab PRIVATE "${PROJECT_BINARY_DIR}/generated")
  target_link_libraries(headwise_lab
    PUBLIC headwise_oracle headwise_internal fmt::fmt
    PRIVATE nlohmann_json::nlohmann_json)
  add_dependencies(headwise_lab headwise_build_info)
  file(GLOB report_files CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/lab/report/*")
  headwise_embed_text(headwise_lab "lab/report_assets.h" report_asset ${report_files})

  file(GLOB cli_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/cli/*.cpp")
  if(cli_sources)
    add_executable(headwise_program ${cli_sources})
    headwise_settings(headwise_program)
    set_target_properties(headwise_program PROPERTIES
      OUTPUT_NAME headwise
      RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/bin")
    target_link_libraries(headwise_program PRIVATE headwise_lab CLI11::CLI11)
  endif()
endfunction()
