// Suites: files of benchmark lines, in the words of axes.h.
//
//   # Decoding, by cache length.
//   batch=1,8 seq-q=1 seq-kv=1024..16384*4 heads=32 kv-heads=8 kernels=flash,unfused
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lab/axes.h"

namespace headwise::lab {

// `name` stands in messages: "default.txt:4: unknown word 'sek'; did you mean 'seq'?"
Result<std::vector<Words>> parse_suite(std::string_view text, std::string_view name);
Result<std::vector<Words>> read_suite(std::string_view name_or_path);

}  // namespace headwise::lab
