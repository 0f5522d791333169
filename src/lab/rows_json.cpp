// Rows as JSON lines: the only file of the laboratory that knows JSON.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "lab/json_lines.h"
#include "lab/row_files.h"
#include "lab/rows.h"

namespace headwise::lab {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMostDepth = 16;  // a row is two levels deep
constexpr std::size_t kExcerpt = 40;

Json number_to_json(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  return value;
}

struct ToJson {
  const Row& row;
  Json operator()(std::string Row::* m) const { return row.*m; }
  Json operator()(std::int64_t Row::* m) const { return row.*m; }
  Json operator()(bool Row::* m) const { return row.*m; }
  Json operator()(OptionalInteger Row::* m) const { return row.*m ? Json(*(row.*m)) : Json(); }
  Json operator()(OptionalNumber Row::* m) const { return row.*m ? number_to_json(*(row.*m)) : Json(); }
  Json operator()(std::vector<double> Row::* m) const {
    Json array = Json::array();
    for (const double value : row.*m) array.push_back(number_to_json(value));
    return array;
  }
};

bool read_number(const Json& json, double& value) {
  if (json.is_number()) {
    value = json.get<double>();
    return true;
  }
  if (!json.is_string()) return false;
  const auto& text = json.get_ref<const std::string&>();
  if (text == "nan") value = std::numeric_limits<double>::quiet_NaN();
  if (text == "inf") value = std::numeric_limits<double>::infinity();
  if (text == "-inf") value = -std::numeric_limits<double>::infinity();
  return text == "nan" || text == "inf" || text == "-inf";
}

bool read_integer(const Json& json, std::int64_t& value) {
  if (!json.is_number_integer()) return false;
  if (json.is_number_unsigned() && json.get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max())
    return false;
  value = json.get<std::int64_t>();
  return true;
}

// Each returns false where the JSON value is of another type. Null leaves the default.
struct FromJson {
  Row& row;
  const Json& json;
  bool operator()(std::string Row::* m) const {
    if (json.is_string()) row.*m = json.get<std::string>();
    return json.is_string();
  }
  bool operator()(std::int64_t Row::* m) const { return read_integer(json, row.*m); }
  bool operator()(bool Row::* m) const {
    if (json.is_boolean()) row.*m = json.get<bool>();
    return json.is_boolean();
  }
  bool operator()(OptionalInteger Row::* m) const { return read_integer(json, (row.*m).emplace()); }
  bool operator()(OptionalNumber Row::* m) const { return read_number(json, (row.*m).emplace()); }
  bool operator()(std::vector<double> Row::* m) const {
    if (!json.is_array()) return false;
    for (const Json& element : json) {
      if (!read_number(element, (row.*m).emplace_back())) return false;
    }
    return true;
  }
};

Status problem_at(std::string_view where, std::string_view what) {
  return Status::invalid_argument(fmt::format("{}: {}", where, what));
}

// An object of the schema that says its type.
Result<Json> parse_object(std::string_view line, std::string_view where) {
  if (nested_deeper(line, kMostDepth))
    return problem_at(where, "nested more than 16 levels deep; not a headwise result file");
  Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return problem_at(where, "not a whole JSON object: " + excerpt(line, kExcerpt));
  if (!json.is_object()) return problem_at(where, "expected a JSON object, got " + excerpt(line, kExcerpt));
  const auto schema = json.find("schema");
  if (schema == json.end() || !schema->is_string()) {
    return problem_at(where,
                      fmt::format("no \"schema\"; expected {}: not a headwise result file", kRowSchema));
  }
  if (schema->get_ref<const std::string&>() != kRowSchema) {
    return problem_at(where,
                      fmt::format("schema {} is not known; this program reads {}",
                                  excerpt(schema->get_ref<const std::string&>(), kExcerpt), kRowSchema));
  }
  const auto found = json.find("type");
  if (found == json.end() || !found->is_string()) return problem_at(where, "\"type\" must be text");
  return json;
}

Status wrong_type(std::string_view where, std::string_view expected) {
  return problem_at(where, fmt::format("expected \"type\":\"{}\"", expected));
}

Result<Json> parse_object(std::string_view line, std::string_view where, std::string_view type) {
  Result<Json> json = parse_object(line, where);
  if (json && json->at("type") != type) return wrong_type(where, type);
  return json;
}

// An object of names and values; nothing where the line has none.
Status read_facts(const Json& line, const char* key, std::string_view where, Environment& facts) {
  const auto found = line.find(key);
  if (found == line.end()) return {};
  if (!found->is_object())
    return problem_at(where, fmt::format("\"{}\" must be an object of name: value", key));
  for (const auto& [name, value] : found->items()) {
    if (value.is_structured())
      return problem_at(where, fmt::format("{} \"{}\" must be one value", key, name));
    facts.emplace_back(name, value.is_string() ? value.get<std::string>() : value.dump());
  }
  return {};
}

Status read_continued(const Json& line, std::string_view where, std::vector<Continuation>& continued) {
  const auto found = line.find("continued");
  if (found == line.end()) return {};
  const auto wrong = [&] {
    return problem_at(
        where, "\"continued\" must be an array of objects with \"started\" and \"command\", both text");
  };
  if (!found->is_array()) return wrong();
  for (const Json& one : *found) {
    if (!one.is_object()) return wrong();
    const auto started = one.find("started"), command = one.find("command");
    if (started == one.end() || command == one.end() || !started->is_string() || !command->is_string())
      return wrong();
    continued.push_back({started->get<std::string>(), command->get<std::string>()});
  }
  return {};
}

std::string dump(const Json& json) {
  // Text that is no UTF-8 (a path, a processor's name) is replaced, not refused.
  return json.dump(-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

constexpr std::pair<const char*, std::string Peak::*> kPeakTexts[] = {
    {"device", &Peak::device}, {"what", &Peak::what},   {"name", &Peak::name},
    {"isa", &Peak::isa},       {"dtype", &Peak::dtype}, {"unit", &Peak::unit}};
constexpr std::pair<const char*, std::int64_t Peak::*> kPeakIntegers[] = {
    {"threads", &Peak::threads}, {"set_bytes", &Peak::set_bytes}, {"samples", &Peak::samples}};
constexpr std::pair<const char*, double Peak::*> kPeakNumbers[] = {
    {"value", &Peak::value}, {"low", &Peak::low}, {"high", &Peak::high}};

Result<Peak> peak_of(const Json& json, std::string_view where) {
  Peak peak;
  const Json null;
  const auto value = [&](const char* key) -> const Json& {
    const auto found = json.find(key);
    return found == json.end() ? null : *found;
  };
  for (const auto& [key, member] : kPeakTexts) {
    if (!value(key).is_string()) return problem_at(where, fmt::format("\"{}\" must be text", key));
    peak.*member = value(key).get<std::string>();
  }
  for (const auto& [key, member] : kPeakIntegers) {
    if (!read_integer(value(key), peak.*member))
      return problem_at(where, fmt::format("\"{}\" must be integer", key));
  }
  for (const auto& [key, member] : kPeakNumbers) {
    if (!read_number(value(key), peak.*member))
      return problem_at(where, fmt::format("\"{}\" must be number", key));
  }
  return peak;
}

Result<Row> row_of(const Json& json, std::string_view where) {
  Row row;
  for (const Field& field : fields()) {
    const auto found = json.find(std::string(field.name));
    if (found == json.end() || found->is_null()) continue;
    if (!std::visit(FromJson{row, *found}, field.member)) {
      return problem_at(
          where, fmt::format("\"{}\" must be {}, got {}", field.name, name(type_of(field)),
                             excerpt(found->dump(-1, ' ', true, Json::error_handler_t::replace), kExcerpt)));
    }
  }
  for (const char* needed : {"case", "contender", "status"}) {
    if (exact_text(row, *find_field(needed)).empty())
      return problem_at(where, fmt::format("\"{}\" is missing", needed));
  }
  return row;
}

}  // namespace

std::string to_json_line(const Run& run) {
  Json json{{"schema", kRowSchema},
            {"type", "run"},
            {"run", run.run},
            {"started", run.started},
            {"command", run.command}};
  for (const auto& [key, facts] : {std::pair{"environment", &run.environment}, {"options", &run.options}}) {
    Json& target = json[key] = Json::object();
    for (const auto& [name, value] : *facts) target[name] = value;
  }
  for (const Continuation& one : run.continued)
    json["continued"].push_back({{"started", one.started}, {"command", one.command}});
  return dump(json);
}

std::string to_json_line(const Peak& peak) {
  Json json{{"schema", kRowSchema}, {"type", "peak"}};
  for (const auto& [key, member] : kPeakTexts) json[key] = peak.*member;
  for (const auto& [key, member] : kPeakIntegers) json[key] = peak.*member;
  for (const auto& [key, member] : kPeakNumbers) json[key] = number_to_json(peak.*member);
  return dump(json);
}

std::string to_json_line(const Row& row) {
  Json json{{"type", "row"}};
  for (const Field& field : fields()) json[std::string(field.name)] = std::visit(ToJson{row}, field.member);
  return dump(json);
}

Result<Run> parse_run_line(std::string_view line, std::string_view where) {
  Result<Json> parsed = parse_object(line, where, "run");
  if (!parsed) return parsed.status();
  Run run;
  const std::pair<const char*, std::string*> texts[] = {
      {"run", &run.run}, {"started", &run.started}, {"command", &run.command}};
  for (const auto& [key, target] : texts) {
    const auto found = parsed->find(key);
    if (found == parsed->end() || !found->is_string()) {
      return problem_at(where, fmt::format("\"{}\" must be text", key));
    }
    *target = found->get<std::string>();
  }
  if (!parsed->contains("environment")) return problem_at(where, "\"environment\" is missing");
  if (Status status = read_facts(*parsed, "environment", where, run.environment); !status.ok()) return status;
  if (Status status = read_facts(*parsed, "options", where, run.options); !status.ok()) return status;
  if (Status status = read_continued(*parsed, where, run.continued); !status.ok()) return status;
  return run;
}

Result<Peak> parse_peak_line(std::string_view line, std::string_view where) {
  Result<Json> parsed = parse_object(line, where, "peak");
  if (!parsed) return parsed.status();
  return peak_of(*parsed, where);
}

Result<Row> parse_row_line(std::string_view line, std::string_view where) {
  Result<Json> parsed = parse_object(line, where, "row");
  if (!parsed) return parsed.status();
  return row_of(*parsed, where);
}

namespace {

// A peak, a row, or a line of a later version.
Status take_line(std::string_view line, std::string_view where, RunFile& file) {
  Result<Json> json = parse_object(line, where);
  if (!json) return json.status();
  const auto& type = json->at("type").get_ref<const std::string&>();
  if (type == "row") {
    Result<Row> row = row_of(*json, where);
    if (!row) return row.status();
    file.rows.push_back(*std::move(row));
    return {};
  }
  if (type == "peak") {
    Result<Peak> peak = peak_of(*json, where);
    if (!peak) return peak.status();
    file.run.peaks.push_back(*std::move(peak));
    return {};
  }
  if (type == "run")
    return problem_at(where,
                      "a second run begins here, and rows of two runs are not comparable: one file a run");
  const std::string unknown =
      fmt::format(": lines of type {} are not known to this program and left out", excerpt(type, kExcerpt));
  const auto same = [&](const std::string& warning) { return warning.ends_with(unknown); };
  if (std::none_of(file.warnings.begin(), file.warnings.end(), same))
    file.warnings.push_back(std::string(where) + unknown);
  return {};
}

}  // namespace

Result<RunFile> read_rows(const std::string& path) {
  Result<std::string> content = read_whole_file(path);
  if (!content) return content.status();
  if (content->empty()) return problem_at(path, "the file is empty; expected a headwise result file");
  RunFile file;
  const std::string_view text = *content;
  std::size_t begin = 0;
  for (std::size_t number = 1; begin < text.size(); ++number) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    const bool cut = end == text.size();  // a whole file ends in a newline
    begin = end + 1;
    const std::string where = fmt::format("{}:{}", path, number);
    if (number == 1) {
      Result<Run> run = parse_run_line(line, where);
      if (!run) return run.status();
      file.run = *std::move(run);
      continue;
    }
    if (line.empty()) continue;
    Status status = take_line(line, where, file);
    if (status.ok()) continue;
    if (!cut) return status;
    file.warnings.push_back(
        fmt::format("{}: the last line was cut and is left out; the {} rows before it are kept", where,
                    file.rows.size()));
  }
  return file;
}

}  // namespace headwise::lab
