#include "lab/presets.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "core/text.h"
#include "lab/data_files.h"

namespace headwise::lab {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array<std::string_view, 6> kKeys{"name", "title", "words", "typical", "source", "note"};
// Who is asked and where is not a matter of a model.
constexpr std::array<std::string_view, 4> kForeignWords{"preset", "kernels", "baseline", "device"};

Status wrong(std::string_view where, const std::string& what) {
  return Status::invalid_argument(fmt::format("{}: {}", where, what));
}

// {"heads": 64, "causal": true, "seq": "128..4096*2"}
Result<std::vector<Word>> parse_words(const Json& object, const std::string& where) {
  if (!object.is_object()) return wrong(where, "words and typical must be objects of axes and values");
  std::vector<Word> words;
  for (const auto& [key, value] : object.items()) {
    const Axis* axis = find_axis(key);
    if (axis == nullptr) {
      return wrong(where, fmt::format("unknown word '{}'{}", key, core::did_you_mean(key, axis_names())));
    }
    if (std::find(kForeignWords.begin(), kForeignWords.end(), axis->name) != kForeignWords.end())
      return wrong(where, fmt::format("'{}' is no word of a model", key));
    std::string text;
    if (value.is_string()) {
      text = value.get<std::string>();
    } else if (value.is_boolean()) {
      text = value.get<bool>() ? "1" : "0";
    } else if (value.is_number()) {
      text = value.dump();
    } else {
      return wrong(where, fmt::format("'{}' must be a number, true, false or a text of values", key));
    }
    if (Result<std::vector<std::string>> values = expand_values(*axis, text); !values)
      return wrong(where, fmt::format("{}: {}", key, values.status().message()));
    words.emplace_back(axis->name, std::move(text));
  }
  return words;
}

Result<Preset> parse_preset(const Json& object, const std::string& where) {
  if (!object.is_object()) return wrong(where, "each preset must be an object");
  for (const auto& [key, value] : object.items()) {
    if (std::find(kKeys.begin(), kKeys.end(), key) == kKeys.end())
      return wrong(where, fmt::format("unknown key '{}'{}", key, core::did_you_mean(key, kKeys)));
  }
  const auto text = [&](const char* key) {
    const auto found = object.find(key);
    return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  Preset preset;
  preset.name = text("name");
  preset.title = text("title");
  preset.source = text("source");
  preset.note = text("note");
  if (preset.name.empty() || preset.title.empty() || preset.source.empty())
    return wrong(where, "name, title and source must be given, as texts");
  const std::string named = fmt::format("{}: {}", where, preset.name);
  for (const auto& [key, slot] : {std::pair{"words", &preset.words}, std::pair{"typical", &preset.typical}}) {
    const auto found = object.find(key);
    if (found == object.end()) continue;
    Result<std::vector<Word>> words = parse_words(*found, named);
    if (!words) return words.status();
    *slot = *std::move(words);
  }
  if (preset.words.empty()) return wrong(named, "no words");
  return preset;
}

Result<std::vector<Preset>> read_presets() {
  const std::string path = data_directory() + "/presets.json";
  std::ifstream stream(path, std::ios::binary);
  if (!stream) {
    return Status::unavailable(fmt::format("cannot open '{}'; set HEADWISE_DATA to the data folder", path));
  }
  const std::string text{std::istreambuf_iterator<char>(stream), {}};
  return parse_presets(text, "presets.json");
}

}  // namespace

Result<std::vector<Preset>> parse_presets(std::string_view json, std::string_view where) {
  const Json file = Json::parse(json, nullptr, false);
  if (file.is_discarded()) return wrong(where, "is not JSON");
  const auto list = file.is_object() ? file.find("presets") : file.end();
  if (list == file.end() || !list->is_array()) return wrong(where, R"(expected {"presets": [...]})");
  std::vector<Preset> all;
  for (const Json& object : *list) {
    Result<Preset> preset = parse_preset(object, std::string(where));
    if (!preset) return preset.status();
    const auto same = [&](const Preset& other) { return other.name == preset->name; };
    if (std::any_of(all.begin(), all.end(), same))
      return wrong(where, fmt::format("two presets are named '{}'", preset->name));
    all.push_back(*std::move(preset));
  }
  return all;
}

const Result<std::vector<Preset>>& presets() {
  static const Result<std::vector<Preset>> all = read_presets();
  return all;
}

Result<const Preset*> find_preset(std::string_view name) {
  std::string with_dashes(name);
  std::replace(with_dashes.begin(), with_dashes.end(), '_', '-');
  const Result<std::vector<Preset>>& all = presets();
  if (!all) return all.status();
  std::vector<std::string_view> names;
  for (const Preset& preset : *all) {
    if (preset.name == with_dashes) return &preset;
    names.push_back(preset.name);
  }
  return Status::invalid_argument(fmt::format("no preset '{}'{} (headwise list presets shows all)", name,
                                              core::did_you_mean(name, names)));
}

}  // namespace headwise::lab
