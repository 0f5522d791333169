#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include "core/text.h"
#include "headwise/device.h"

namespace headwise::core {
namespace {

constexpr std::array<std::string_view, 4> kWords = {"window_left", "window_right", "heads", "head_dim"};

TEST(NearestMatch, FindsTypingErrors) {
  EXPECT_EQ(nearest_match("windw_left", kWords), "window_left");  // one letter lost
  EXPECT_EQ(nearest_match("haeds", kWords), "heads");             // neighbours swapped
  EXPECT_EQ(nearest_match("head-dim", kWords), "head_dim");       // one letter replaced
  EXPECT_EQ(nearest_match("headss", kWords), "heads");            // one letter too many
  EXPECT_EQ(nearest_match("window_r", kWords), "window_right");   // a prefix
}

TEST(NearestMatch, StaysSilentWhenNothingIsNear) {
  EXPECT_EQ(nearest_match("temperature", kWords), "");
  EXPECT_EQ(nearest_match("", kWords), "");
  EXPECT_EQ(nearest_match("x", std::array<std::string_view, 1>{"q"}), "");
  EXPECT_EQ(nearest_match("heads", {}), "");
  EXPECT_EQ(did_you_mean("temperature", kWords), "");
  EXPECT_EQ(did_you_mean("haeds", kWords), "; did you mean 'heads'?");
}

TEST(NearestMatch, LongWordsAreCheap) {
  const std::string word(1U << 20, 'a');
  EXPECT_EQ(nearest_match(word, kWords), "");
}

TEST(Split, KeepsEmptyPartsAndDropsEmptyWords) {
  EXPECT_EQ(split("a,,b", ','), (std::vector<std::string_view>{"a", "", "b"}));
  EXPECT_EQ(split("", ','), (std::vector<std::string_view>{""}));
  EXPECT_EQ(split("a,", ','), (std::vector<std::string_view>{"a", ""}));
  EXPECT_EQ(split_words("  a\tb\n c "), (std::vector<std::string_view>{"a", "b", "c"}));
  EXPECT_TRUE(split_words(" \t ").empty());
}

TEST(ParseNumber, TakesTheWholeTextOrNothing) {
  EXPECT_EQ(parse_number<int>("42"), 42);
  EXPECT_EQ(parse_number<std::int64_t>("-9223372036854775808"), std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(parse_number<double>("1e3"), 1000.0);
  for (const char* text : {"", " 1", "1 ", "1x", "+1", "0x10", "--1", "99999999999"}) {
    EXPECT_FALSE(parse_number<int>(text).has_value()) << text;
  }
}

TEST(Shortest, ParsesBackToTheSameBits) {
  for (const float value : {0.1F, 1.0F / 3, 0.125F, 3.4028235e38F, 1e-45F, -0.0F}) {
    const std::optional<float> back = parse_number<float>(shortest(value));
    ASSERT_TRUE(back.has_value());
    EXPECT_EQ(*back, value);
    EXPECT_EQ(std::signbit(*back), std::signbit(value));
  }
  EXPECT_EQ(shortest(0.125F), "0.125");
  EXPECT_EQ(shortest(0.1), "0.1");
}

TEST(DeviceNames, ParseAndPrint) {
  EXPECT_EQ(to_string(DeviceId{}), "cpu");
  EXPECT_EQ(to_string(DeviceId{DeviceKind::cuda, 3}), "cuda:3");
  EXPECT_EQ(*parse_device("cpu"), DeviceId{});
  EXPECT_EQ(*parse_device("cuda"), (DeviceId{DeviceKind::cuda, 0}));
  EXPECT_EQ(*parse_device("cuda:12"), (DeviceId{DeviceKind::cuda, 12}));
  for (const char* text : {"", "cpu:1", "cuda:", "cuda:-1", "cuda:x", "gpu", "cuda:99999999999", "cudaa"}) {
    const Result<DeviceId> parsed = parse_device(text);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_NE(parsed.status().message().find("'" + std::string(text) + "'"), std::string::npos) << text;
  }
  EXPECT_NE(parse_device("cdua").status().message().find("did you mean 'cuda'"), std::string::npos);
}

}  // namespace
}  // namespace headwise::core
