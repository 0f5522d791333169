#include "lab/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "core/text.h"

namespace headwise::lab {
namespace {

std::string_view variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string_view{} : std::string_view(value);
}

bool utf8_locale() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {  // the first that is set decides
    std::string value(variable(name));
    if (value.empty()) continue;
    std::transform(value.begin(), value.end(), value.begin(),
                   [](unsigned char c) { return std::tolower(c); });
    return value.find("utf-8") != std::string::npos || value.find("utf8") != std::string::npos;
  }
  return false;
}

}  // namespace

Terminal terminal_of(int descriptor) {
  Terminal terminal;
  terminal.live = isatty(descriptor) == 1 && variable("TERM") != "dumb" && !variable("TERM").empty();
  terminal.color = terminal.live && variable("NO_COLOR").empty();
  terminal.unicode = utf8_locale();
  winsize size{};
  if (const auto columns = core::parse_number<int>(variable("COLUMNS")); columns && *columns > 0) {
    terminal.columns = *columns;
  } else if (isatty(descriptor) == 1 && ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
    terminal.columns = size.ws_col;
  }
  terminal.columns = std::clamp(terminal.columns, 20, 10'000);
  return terminal;
}

std::string colored(const Terminal& terminal, Color color, std::string_view text) {
  if (!terminal.color || color == Color::none) return std::string(text);
  const char* code = "";
  switch (color) {
    case Color::none: break;
    case Color::bold: code = "\x1b[1m"; break;
    case Color::green: code = "\x1b[32m"; break;
    case Color::yellow: code = "\x1b[33m"; break;
    case Color::red: code = "\x1b[31m"; break;
  }
  return code + std::string(text) + "\x1b[0m";
}

std::string cut_to(std::string_view text, int columns) {
  const auto width = static_cast<std::size_t>(std::max(columns, 3));
  if (text.size() <= width) return std::string(text);
  return std::string(text.substr(0, width - 3)) + "...";
}

std::string wrapped(std::string_view text, std::string_view separator, int columns, std::size_t indent) {
  const auto width = static_cast<std::size_t>(std::max(columns, 20));
  std::string result, line;
  while (!text.empty()) {
    const std::size_t found = text.find(separator);
    const std::size_t end = found == std::string_view::npos ? text.size() : found + separator.size();
    const std::string_view part = text.substr(0, end);
    const std::size_t shown = found == std::string_view::npos ? part.size() : part.find_last_not_of(' ') + 1;
    if (line.find_first_not_of(' ') != std::string::npos && line.size() + shown > width) {
      result += line.erase(line.find_last_not_of(' ') + 1) + "\n";
      line.assign(indent, ' ');
    }
    line += part;
    text.remove_prefix(end);
  }
  return result + line;
}

}  // namespace headwise::lab
