# Text files inside the program. headwise_embed_text(<target> <header> <function> <files...>) adds to the
# target a source that defines
#   std::string_view headwise::lab::<function>(std::string_view name)
# as declared in <header>: the text of the file of that name, empty if there is none. It is written again
# when a file changes. Run as a script (cmake -P), this file writes that source.

if(CMAKE_SCRIPT_MODE_FILE)
  set(cases "")
  foreach(file IN LISTS FILES)
    file(READ "${file}" text)
    get_filename_component(name "${file}" NAME)
    # Pieces of 8,000 characters: compilers may refuse string literals over 65,536.
    string(LENGTH "${text}" length)
    set(literal "")
    set(start 0)
    while(start LESS length)
      string(SUBSTRING "${text}" ${start} 8000 piece)
      string(APPEND literal "R\"headwise~(${piece})headwise~\"\n")
      math(EXPR start "${start} + 8000")
    endwhile()
    string(APPEND cases "  if (name == \"${name}\") {\n    return ${literal};\n  }\n")
  endforeach()
  file(WRITE "${OUTPUT}" "#include \"${HEADER}\"\n\nnamespace headwise::lab {\n\nstd::string_view ${FUNCTION}(std::string_view name) {\n${cases}  return {};\n}\n\n}  // namespace headwise::lab\n")
  return()
endif()

set(HEADWISE_EMBED_SCRIPT "${CMAKE_CURRENT_LIST_FILE}")

function(headwise_embed_text target header function)
  set(output "${PROJECT_BINARY_DIR}/generated/${function}.cpp")
  add_custom_command(OUTPUT "${output}"
    COMMAND "${CMAKE_COMMAND}" "-DFILES=${ARGN}" "-DHEADER=${header}" "-DFUNCTION=${function}"
      "-DOUTPUT=${output}" -P "${HEADWISE_EMBED_SCRIPT}"
    DEPENDS ${ARGN} "${HEADWISE_EMBED_SCRIPT}"
    COMMENT "Embedding text files as ${function}"
    VERBATIM)
  target_sources(${target} PRIVATE "${output}")
endfunction()
