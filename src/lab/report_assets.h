// The files of src/lab/report/ as text inside the program; the build writes the definition
// (cmake/embed_text.cmake).
#pragma once

#include <string_view>

namespace headwise::lab {

// The text of src/lab/report/<name>; empty if there is no such file.
std::string_view report_asset(std::string_view name);

}  // namespace headwise::lab
