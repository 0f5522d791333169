# Suites, presets, charts, captured tensors and peers. The program looks in <its folder>/../share/headwise,
# so the build tree shows the source's data there, as an installation does.

set(HEADWISE_DATA_ENTRIES suites presets.json charts captured)

function(headwise_link_data)
  set(share "${PROJECT_BINARY_DIR}/share/headwise")
  file(MAKE_DIRECTORY "${share}")
  foreach(entry IN LISTS HEADWISE_DATA_ENTRIES)
    file(CREATE_LINK "${PROJECT_SOURCE_DIR}/data/${entry}" "${share}/${entry}" SYMBOLIC)
  endforeach()
  file(CREATE_LINK "${PROJECT_SOURCE_DIR}/peers" "${share}/peers" SYMBOLIC)
  # May dangle: without an environment, the peers of its set are rows that say how to get it.
  file(CREATE_LINK "${HEADWISE_PEER_ENVIRONMENTS_DIR}" "${share}/environments" SYMBOLIC)
  # May dangle: without the renderer, reports have their tables and no charts.
  file(CREATE_LINK "${HEADWISE_RENDERER_DIR}" "${share}/renderer" SYMBOLIC)
endfunction()
