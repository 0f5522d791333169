#include "lab/peers/messages.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "lab/json_lines.h"

namespace headwise::lab {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMostDepth = 8;
constexpr std::size_t kExcerpt = 60;

class Reader {
 public:
  explicit Reader(const Json& json) : json_(json) {}
  void read(const char* name, std::string& value) {
    if (const Json* found = find(name)) {
      found->is_string() ? void(value = found->get<std::string>()) : wrong(name, "a string");
    }
  }
  void read(const char* name, bool& value) {
    if (const Json* found = find(name)) {
      found->is_boolean() ? void(value = found->get<bool>()) : wrong(name, "true or false");
    }
  }
  void read(const char* name, std::vector<std::string>& value) {
    const Json* found = find(name);
    if (found == nullptr) return;
    if (!found->is_array()) return wrong(name, "an array of strings");
    for (const Json& element : *found) {
      if (!element.is_string()) return wrong(name, "an array of strings");
      value.push_back(element.get<std::string>());
    }
  }
  void read(const char* name, std::optional<double>& value) {
    if (const Json* found = find(name)) {
      const bool fits =
          found->is_number() && std::isfinite(found->get<double>()) && found->get<double>() >= 0;
      fits ? void(value = found->get<double>()) : wrong(name, "a number that is not negative");
    }
  }
  void read(const char* name, std::optional<std::int64_t>& value) {
    if (const Json* found = find(name)) {
      const bool fits = found->is_number_integer() && found->get<std::int64_t>() >= 0;
      fits ? void(value = found->get<std::int64_t>()) : wrong(name, "a whole number that is not negative");
    }
  }
  [[nodiscard]] const std::string& problem() const { return problem_; }

 private:
  const Json* find(const char* name) {
    const auto found = json_.find(name);
    return found == json_.end() || found->is_null() ? nullptr : &*found;
  }
  void wrong(const char* name, const char* expected) {
    if (problem_.empty()) problem_ = fmt::format("{}: expected {}", name, expected);
  }
  const Json& json_;
  std::string problem_;
};

std::string line_of(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace

Status check_carried(const AttentionProblem& p) {
  for (const auto& [feature, asked] : {std::pair{"softcap", p.softcap != 0},
                                       {"alibi_slopes", p.alibi != AlibiKind::none},
                                       {"sinks", p.sinks},
                                       {"bias", p.bias},
                                       {"mask", p.mask != MaskKind::none},
                                       {"dropout_p", p.dropout_p > 0},
                                       {"varlen", p.varlen},
                                       {"lengths_kv", p.lengths},
                                       {"starts_kv", p.starts},
                                       {"page_size", p.page_size > 0}}) {
    if (asked)
      return Status::unsupported(
          fmt::format("{}: peers are not told of it; the protocol has no word for it", feature));
  }
  return {};
}

std::string prepare_message(std::int64_t id, const Case& one, const std::vector<SharedTensor>& tensors,
                            const std::string& path, std::size_t bytes, std::size_t last_level_cache_bytes) {
  const AttentionProblem& p = one.problem;
  Json shared = Json::object();
  for (const SharedTensor& tensor : tensors) {
    shared[tensor.name] = {
        {"offset", tensor.offset},
        {"dtype", name(tensor.view.dtype)},
        {"shape", {tensor.view.shape[0], tensor.view.shape[1], tensor.view.shape[2], tensor.view.shape[3]}}};
  }
  const Json described = {{"device", to_string(one.device)},
                          {"threads", p.threads},
                          {"direction", name(p.direction)},
                          {"dtype", name(p.dtype)},
                          {"kv_dtype", name(p.kv_dtype)},
                          {"batch", p.batch},
                          {"heads", p.heads},
                          {"kv_heads", p.kv_heads},
                          {"seq_q", p.seq_q},
                          {"seq_kv", p.seq_kv},
                          {"head_dim", p.head_dim},
                          {"head_dim_v", p.head_dim_v},
                          {"softmax_scale", p.scale()},
                          {"causal", p.causal},
                          {"align", name(p.align)},
                          {"window_left", p.window_left},
                          {"window_right", p.window_right},
                          {"cold", one.cold},
                          {"last_level_cache_bytes", last_level_cache_bytes},
                          {"memory", {{"path", path}, {"bytes", bytes}}},
                          {"tensors", shared}};
  return line_of({{"id", id}, {"op", "prepare"}, {"case", described}});
}

std::string time_message(std::int64_t id, std::int64_t calls, double lead_in_ms) {
  return line_of({{"id", id}, {"op", "time"}, {"calls", calls}, {"lead_in_ms", lead_in_ms}});
}

std::string plain_message(std::int64_t id, std::string_view op) { return line_of({{"id", id}, {"op", op}}); }

Result<PeerReply> parse_reply(std::string_view line) {
  const auto no = [&](std::string_view why) {
    return Status::internal(fmt::format("wrote {}: {}", excerpt(line, kExcerpt), why));
  };
  if (nested_deeper(line, kMostDepth)) return no("too deeply nested");
  const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded() || !json.is_object()) return no("expected a JSON object on a line");
  PeerReply reply;
  Reader reader(json);
  std::optional<std::int64_t> id;
  reader.read("id", id);
  for (const auto& [name, value] : {std::pair{"status", &reply.status},
                                    {"reason", &reply.reason},
                                    {"protocol", &reply.protocol},
                                    {"peer", &reply.peer},
                                    {"version", &reply.version},
                                    {"about", &reply.about},
                                    {"threads", &reply.threads},
                                    {"ran", &reply.ran},
                                    {"timer", &reply.timer},
                                    {"regime", &reply.regime},
                                    {"cache_method", &reply.cache_method},
                                    {"peak_method", &reply.peak_method}}) {
    reader.read(name, *value);
  }
  for (const auto& [name, value] :
       {std::pair{"devices", &reply.devices}, {"dtypes", &reply.dtypes}, {"directions", &reply.directions}})
    reader.read(name, *value);
  for (const auto& [name, value] : {std::pair{"prepare_ms", &reply.prepare_ms},
                                    {"overhead_ms", &reply.overhead_ms},
                                    {"ms", &reply.ms},
                                    {"latency_ms", &reply.latency_ms},
                                    {"clock_mhz", &reply.clock_mhz}})
    reader.read(name, *value);
  for (const auto& [name, value] : {std::pair{"peak_bytes", &reply.peak_bytes}, {"calls", &reply.calls}})
    reader.read(name, *value);
  reader.read("restart", reply.restart);
  if (!reader.problem().empty()) return no(reader.problem());
  if (!id) return no("expected an id");
  if (reply.status.empty()) return no("expected a status");
  reply.id = *id;
  return reply;
}

}  // namespace headwise::lab
