# cmake -P script: writes OUT from TEMPLATE. In a checkout of its own the sha comes from git; in an
# archive made by `git archive` from cmake/git_archive.txt; else it is "unknown".
cmake_minimum_required(VERSION 3.25)

set(GIT_SHA unknown)
set(GIT_DIRTY false)
if(GIT AND EXISTS "${SOURCE}/.git")
  # safe.directory: a checkout owned by somebody else is only read here.
  execute_process(COMMAND "${GIT}" -c "safe.directory=*" -C "${SOURCE}" rev-parse HEAD
    OUTPUT_VARIABLE sha OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE failed ERROR_QUIET)
  if(NOT failed)
    set(GIT_SHA "${sha}")
    execute_process(COMMAND "${GIT}" -c "safe.directory=*" --no-optional-locks -C "${SOURCE}" status --porcelain --untracked-files=no
      OUTPUT_VARIABLE changes OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    if(changes)
      set(GIT_DIRTY true)
    endif()
  endif()
elseif(EXISTS "${SOURCE}/cmake/git_archive.txt")
  file(STRINGS "${SOURCE}/cmake/git_archive.txt" sha LIMIT_COUNT 1)
  if(sha MATCHES "^[0-9a-f]+$")
    set(GIT_SHA "${sha}")
  endif()
endif()
configure_file("${TEMPLATE}" "${OUT}" @ONLY)  # writes only when the content differs
