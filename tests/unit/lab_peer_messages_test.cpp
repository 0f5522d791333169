// Requests to workers and their answers: what is written, and what is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lab/peers/messages.h"

namespace headwise::lab {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(PeerMessages, ARequestSaysAllThatDecides) {
  Case one;
  one.problem = {.dtype = DType::bf16,
                 .kv_dtype = DType::bf16,
                 .batch = 2,
                 .heads = 4,
                 .kv_heads = 2,
                 .seq_q = 3,
                 .seq_kv = 5,
                 .head_dim = 16,
                 .head_dim_v = 16,
                 .causal = true,
                 .align = Align::bottom_right,
                 .threads = 2};
  const TensorView q = contiguous(nullptr, DType::bf16, {2, 3, 4, 16});
  const std::string text = prepare_message(7, one, {{"q", q, 4096}}, "/proc/1/fd/3", 8192, 100);
  EXPECT_EQ(text.find('\n'), std::string::npos);
  for (const char* part : {R"("id":7)",
                           R"("op":"prepare")",
                           R"("device":"cpu")",
                           R"("threads":2)",
                           R"("direction":"forward")",
                           R"("dtype":"bf16")",
                           R"("batch":2)",
                           R"("heads":4)",
                           R"("kv_heads":2)",
                           R"("seq_q":3)",
                           R"("seq_kv":5)",
                           R"("head_dim":16)",
                           R"("softmax_scale":0.25)",
                           R"("causal":true)",
                           R"("align":"bottom_right")",
                           R"("window_left":-1)",
                           R"("cold":false)",
                           R"("path":"/proc/1/fd/3")",
                           R"("bytes":8192)",
                           R"("q":{"offset":4096,"dtype":"bf16","shape":[2,3,4,16]})"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
  EXPECT_EQ(time_message(8, 4, 2.5), R"({"id":8,"op":"time","calls":4,"lead_in_ms":2.5})");
  EXPECT_EQ(plain_message(9, "release"), R"({"id":9,"op":"release"})");
}

TEST(PeerMessages, AnAnswerIsRead) {
  Result<PeerReply> reply = parse_reply(
      R"({"id":3,"status":"ok","ran":"x","devices":["cpu","cuda"],"ms":1.5,"calls":4,"peak_bytes":0,"more":{"a":[1]}})");
  ASSERT_TRUE(reply.ok()) << reply.status().message();
  EXPECT_EQ(reply->id, 3);
  EXPECT_EQ(reply->ran, "x");
  EXPECT_THAT(reply->devices, ElementsAre("cpu", "cuda"));
  EXPECT_EQ(reply->ms, 1.5);
  EXPECT_EQ(reply->calls, 4);
  EXPECT_EQ(reply->peak_bytes, 0);
  EXPECT_FALSE(reply->latency_ms.has_value());
  EXPECT_FALSE(reply->restart);
  EXPECT_TRUE(parse_reply(R"({"id":3,"status":"ok","latency_ms":null})").ok());
  EXPECT_TRUE(parse_reply(R"({"id":3,"status":"ok","restart":true})")->restart);
}

TEST(PeerMessages, WhatIsNoAnswerIsRefusedByName) {
  const auto why = [](const std::string& line) {
    Result<PeerReply> reply = parse_reply(line);
    return reply.ok() ? "accepted" : reply.status().message();
  };
  EXPECT_THAT(why("hello"), HasSubstr("'hello'"));
  EXPECT_THAT(why(""), HasSubstr("expected a JSON object"));
  EXPECT_THAT(why("[1]"), HasSubstr("expected a JSON object"));
  EXPECT_THAT(why(R"({"id":1,"status":"ok"} {)"), HasSubstr("expected a JSON object"));
  EXPECT_THAT(why(R"({"status":"ok"})"), HasSubstr("expected an id"));
  EXPECT_THAT(why(R"({"id":1})"), HasSubstr("expected a status"));
  EXPECT_THAT(why(R"({"id":-1,"status":"ok"})"), HasSubstr("id: expected"));
  EXPECT_THAT(why(R"({"id":1.5,"status":"ok"})"), HasSubstr("id: expected"));
  EXPECT_THAT(why(R"({"id":1,"status":5})"), HasSubstr("status: expected a string"));
  EXPECT_THAT(why(R"({"id":1,"status":"ok","ms":"fast"})"), HasSubstr("ms: expected"));
  EXPECT_THAT(why(R"({"id":1,"status":"ok","ms":-1})"), HasSubstr("ms: expected"));
  EXPECT_THAT(why(R"({"id":1,"status":"ok","ms":1e999})"), HasSubstr("'"));
  EXPECT_THAT(why(R"({"id":1,"status":"ok","devices":"cpu"})"), HasSubstr("devices: expected"));
  EXPECT_THAT(why(std::string(100000, '[')), HasSubstr("nested"));
  EXPECT_THAT(why(R"({"id":1,"status":"\"}","more":)" + std::string(100000, '[')), HasSubstr("nested"));
  EXPECT_THAT(why("\xff\xfe{\x01"), HasSubstr("'??{?'"));
  EXPECT_THAT(why(R"({"id":1,"status":"\xff"})"), testing::Not(testing::Eq("accepted")));
}

TEST(PeerMessages, BracketsInALibrarysWordsNestNothing) {
  const std::string words = "no match for [[[[[[[[[[[[ {{{{{{{{ in \\\"f(x\\\\";
  Result<PeerReply> reply = parse_reply(R"({"id":1,"status":"error","reason":")" + words + R"("})");
  ASSERT_TRUE(reply.ok()) << reply.status().message();
  EXPECT_THAT(reply->reason, HasSubstr("[[[[[[[[[[[[ {{{{{{{{"));
}

}  // namespace
}  // namespace headwise::lab
