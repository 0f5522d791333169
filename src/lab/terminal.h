// What the terminal can show: width, colours, characters.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace headwise::lab {

struct Terminal {
  bool live = false;     // a line may be redrawn: a terminal that is not "dumb"
  bool color = false;    // live, and NO_COLOR is not set
  bool unicode = false;  // the locale is UTF-8
  int columns = 160;     // COLUMNS, else what the terminal says, else this
};

// Of file descriptor 1 or 2.
Terminal terminal_of(int descriptor);

enum class Color { none, bold, green, yellow, red };
// Unchanged where the terminal takes no colour.
std::string colored(const Terminal& terminal, Color color, std::string_view text);
// At most `columns` characters, "..." where something was cut.
std::string cut_to(std::string_view text, int columns);

// Broken behind a separator where a line would be longer; later lines are indented.
std::string wrapped(std::string_view text, std::string_view separator, int columns, std::size_t indent);

}  // namespace headwise::lab
