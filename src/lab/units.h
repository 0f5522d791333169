// Quantities for people's eyes, and words for their shells.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace headwise::lab {

std::string bytes_for_people(double bytes);      // "12.3 MiB"
std::string seconds_for_people(double seconds);  // "0.4 s", "12 min"
std::string rate_for_people(double per_second);  // "12.3M"
// Four significant digits without an exponent, so that a column can be read down.
std::string four_digits(double value);
// "1 case", "2 cases"; of nouns that take an s.
std::string counted(std::size_t count, std::string_view noun);
// As a POSIX shell must be given it: quoted where it needs to be.
std::string shell_word(std::string_view word);

}  // namespace headwise::lab
