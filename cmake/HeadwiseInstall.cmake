# What `cmake --install` leaves: library, headers, find_package(headwise), pkg-config; the program
# and its data where they were built.

include(CMakePackageConfigHelpers)

set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/headwise")

install(TARGETS headwise EXPORT headwiseTargets)
install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/headwise" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
  FILES_MATCHING PATTERN "*.h")
install(EXPORT headwiseTargets NAMESPACE headwise:: DESTINATION "${package_dir}")

get_target_property(library_type headwise TYPE)
configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/headwiseConfig.cmake.in"
  "${PROJECT_BINARY_DIR}/cmake/headwiseConfig.cmake" INSTALL_DESTINATION "${package_dir}"
  NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file("${PROJECT_BINARY_DIR}/cmake/headwiseConfigVersion.cmake"
  COMPATIBILITY SameMinorVersion)
install(FILES
  "${PROJECT_BINARY_DIR}/cmake/headwiseConfig.cmake"
  "${PROJECT_BINARY_DIR}/cmake/headwiseConfigVersion.cmake"
  DESTINATION "${package_dir}")

# The .pc file names its prefix relative to itself, so that the folder may be moved.
set(pc_libdir "${CMAKE_INSTALL_LIBDIR}")
file(RELATIVE_PATH pc_prefix "/p/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/p")
configure_file("${PROJECT_SOURCE_DIR}/cmake/headwise.pc.in" "${PROJECT_BINARY_DIR}/cmake/headwise.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/cmake/headwise.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")

if(TARGET headwise_program)
  install(TARGETS headwise_program)
  foreach(entry IN LISTS HEADWISE_DATA_ENTRIES)
    if(IS_DIRECTORY "${PROJECT_SOURCE_DIR}/data/${entry}")
      install(DIRECTORY "${PROJECT_SOURCE_DIR}/data/${entry}" DESTINATION "${CMAKE_INSTALL_DATADIR}/headwise")
    elseif(EXISTS "${PROJECT_SOURCE_DIR}/data/${entry}")
      install(FILES "${PROJECT_SOURCE_DIR}/data/${entry}" DESTINATION "${CMAKE_INSTALL_DATADIR}/headwise")
    endif()
  endforeach()
  # Environments stay where they are: those of an installation are named by --peer-python, or linked to as
  # share/headwise/environments.
  install(DIRECTORY "${PROJECT_SOURCE_DIR}/peers" DESTINATION "${CMAKE_INSTALL_DATADIR}/headwise"
    FILES_MATCHING PATTERN "*.py" PATTERN "*.txt" PATTERN "__pycache__" EXCLUDE)
  install(FILES "${HEADWISE_RENDERER_DIR}/vega-bundle.js" DESTINATION "${CMAKE_INSTALL_DATADIR}/headwise/renderer" OPTIONAL)
endif()
