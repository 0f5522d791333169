// Early return of a failed Status.
#pragma once

#include "headwise/status.h"

// NOLINTNEXTLINE(cppcoreguidelines-macro-usage): only a macro can return from its caller
#define HEADWISE_TRY(expression)                                                           \
  do {                                                                                     \
    if (::headwise::Status try_status = (expression); !try_status.ok()) return try_status; \
  } while (false)
