// Names of devices: "cpu", "cuda:0".
#include <array>
#include <optional>

#include "core/text.h"
#include "headwise/device.h"

namespace headwise {

std::string to_string(DeviceId id) {
  return id.kind == DeviceKind::cpu ? "cpu" : "cuda:" + std::to_string(id.index);
}

Result<DeviceId> parse_device(std::string_view text) {
  const std::size_t colon = text.find(':');
  const std::string_view kind = text.substr(0, colon);
  int index = 0;
  if (colon != std::string_view::npos) {
    const std::optional<int> number = core::parse_number<int>(text.substr(colon + 1));
    if (!number || *number < 0) {
      return Status::invalid_argument("device '" + std::string(text) +
                                      "': expected a number >= 0 after the colon, as in cuda:0");
    }
    index = *number;
  }
  if (kind == "cuda") return DeviceId{DeviceKind::cuda, index};
  if (kind == "cpu" && index == 0) return DeviceId{};
  if (kind == "cpu") {
    return Status::invalid_argument("device '" + std::string(text) + "': there is one CPU device, cpu");
  }
  constexpr std::array<std::string_view, 2> kKinds = {"cpu", "cuda"};
  return Status::invalid_argument("device '" + std::string(text) +
                                  "' is unknown: expected cpu, cuda or cuda:N" +
                                  core::did_you_mean(kind, kKinds));
}

}  // namespace headwise
