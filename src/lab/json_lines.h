// Lines of JSON from outside, before and after the parser: shared by all that read them.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace headwise::lab {

// Deep nesting is to be refused before the parser recurses into it. Brackets within strings nest nothing.
bool nested_deeper(std::string_view line, std::size_t levels);

// A short quotation of what came, on one line: at most `length` characters of it.
std::string excerpt(std::string_view text, std::size_t length);

}  // namespace headwise::lab
