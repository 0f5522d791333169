// Where suites, charts and captured tensors lie: HEADWISE_DATA, else ../share/headwise beside the program's
// folder.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "headwise/status.h"
#include "lab/inputs.h"

namespace headwise::lab {

std::string data_directory();

// "normal", "uniform", "structured", "captured:<layer>" of the recorded model, "captured:<file>:<layer>" with
// a path or the name of a file in the data directory's captured/.
Result<InputSpec> find_inputs(std::string_view text);
Result<std::vector<int>> default_captured_layers();

struct SuiteFile {
  std::string name;  // "default"
  std::string path;
  std::string summary;  // its first comment line
};
std::vector<SuiteFile> suite_files();
// A name of suite_files(), or a path.
Result<SuiteFile> find_suite(std::string_view name);

}  // namespace headwise::lab
