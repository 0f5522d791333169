// A good file, and what a hostile one may try.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "lab/safetensors.h"

namespace headwise::lab {
namespace {

class SafeTensorsFile : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    path_ = std::filesystem::temp_directory_path() /
            ("headwise_" + std::string(info->name()) + "_" + std::to_string(::getpid()) + ".safetensors");
  }
  void TearDown() override { std::filesystem::remove(path_); }

  void write_bytes(const std::string& bytes) { std::ofstream(path_, std::ios::binary) << bytes; }
  // A file with this header, its true length before it, and `data` behind it.
  void write(const std::string& header, const std::string& data, std::int64_t length = -1) {
    std::string bytes(8, '\0');
    const auto n = length < 0 ? header.size() : static_cast<std::uint64_t>(length);
    std::memcpy(bytes.data(), &n, 8);
    write_bytes(bytes + header + data);
  }
  [[nodiscard]] Result<SafeTensors> open() const { return SafeTensors::open(path_.string()); }

  std::filesystem::path path_;
};

TEST_F(SafeTensorsFile, ReadsTensorsAndMetadata) {
  write(
      R"({"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]},"__metadata__":{"model":"m"},)"
      R"("a":{"dtype":"F16","shape":[1,2],"data_offsets":[0,4]}, "empty":{"dtype":"I8","shape":[3,0],"data_offsets":[12,12]}}   )",
      std::string("\x00\x3c\x00\x40\x00\x00\x80\x3f\x00\x00\x00\x40", 12));
  const Result<SafeTensors> file = open();
  ASSERT_TRUE(file.ok()) << file.status().message();
  ASSERT_EQ(file->tensors().size(), 3U);
  EXPECT_EQ(file->tensors()[0].name, "a");
  EXPECT_EQ(file->metadata().at("model"), "m");
  const SafeTensor* b = file->find("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(b->dtype, DType::f32);
  EXPECT_EQ(b->elements(), 2);
  float values[2] = {};
  ASSERT_TRUE(file->read(*b, 0, 8, values).ok());
  EXPECT_EQ(values[0], 1.0F);
  EXPECT_EQ(values[1], 2.0F);
  ASSERT_TRUE(file->read(*b, 4, 4, values).ok());
  EXPECT_EQ(values[0], 2.0F);
  EXPECT_FALSE(file->read(*b, 4, 8, values).ok());
  EXPECT_FALSE(file->read(*b, SIZE_MAX, 4, values).ok());
  EXPECT_EQ(file->find("c"), nullptr);
}

TEST_F(SafeTensorsFile, TellsOfAFileThatIsNotThere) {
  const Status status = open().status();
  EXPECT_EQ(status.code(), StatusCode::unavailable);
  EXPECT_NE(status.message().find(path_.string()), std::string::npos);
  EXPECT_FALSE(SafeTensors::open(std::filesystem::temp_directory_path().string()).ok());  // a folder
}

struct Hostile {
  const char* header;
  std::size_t data;      // bytes behind it
  const char* expected;  // in the message
};

std::string nested(std::size_t depth) {
  std::string text = R"({"a":{"dtype":"F32","shape":)";
  text.append(depth, '[');
  return text;
}

TEST_F(SafeTensorsFile, RefusesHostileHeaders) {
  const Hostile cases[] = {
      {"", 0, "must begin with '{'"},
      {"[]", 0, "must begin with '{'"},
      {" {}", 0, "must begin with '{'"},
      {"{", 0, "no JSON"},
      {"{}}", 0, "no JSON: unexpected text at byte 11"},
      {R"({"a":})", 0, "no JSON"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},})", 4, "no JSON"},
      {R"({"a":{"dtype":"F32","shape":[1,],"data_offsets":[0,4]}})", 4, "no JSON"},
      {R"({"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}})", 4, "no JSON"},
      {"{\"\xff\":1}", 0, "no JSON"},
      {R"({"a":1})", 0, "tensor 'a': a number stands"},
      {R"({"a":null})", 0, "tensor 'a': null"},
      {R"({"a":[]})", 0, "tensor 'a': a list stands"},
      {R"({"a":true})", 0, "tensor 'a': true and false"},
      {R"({"a":"F32"})", 0, "tensor 'a': text stands"},
      {R"({"a":{}})", 0, "all three"},
      {R"({"a":{"dtype":"F32","shape":[1]}})", 4, "all three"},
      {R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", 4, "all three"},
      {R"({"a":{"shape":[1],"data_offsets":[0,4]}})", 4, "all three"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}})", 4, "field 'x' is unknown"},
      {R"({"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}})", 4, "dtype 'F31'"},
      {R"({"a":{"dtype":4,"shape":[1],"data_offsets":[0,4]}})", 4, "a number stands"},
      {R"({"a":{"dtype":["F32"],"shape":[1],"data_offsets":[0,4]}})", 4, "a list stands"},
      {R"({"a":{"dtype":"F32","shape":"1","data_offsets":[0,4]}})", 4, "text stands"},
      {R"({"a":{"dtype":"F32","shape":1,"data_offsets":[0,4]}})", 4, "a number stands"},
      {R"({"a":{"dtype":"F32","shape":{},"data_offsets":[0,4]}})", 4, "an object stands"},
      {R"({"a":{"dtype":"F32","shape":["1"],"data_offsets":[0,4]}})", 4, "text stands"},
      {R"({"a":{"dtype":"F32","shape":[[1]],"data_offsets":[0,4]}})", 4, "a list stands"},
      {R"({"a":{"dtype":"F32","shape":[{}],"data_offsets":[0,4]}})", 4, "an object stands"},
      {R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, "negative"},
      {R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", 4,
       "number '1.0' must be a whole number"},
      {R"({"a":{"dtype":"F32","shape":[1e0],"data_offsets":[0,4]}})", 4, "whole number"},
      {R"({"a":{"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,4]}})", 4, "below 2^63"},
      {R"({"a":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,4]}})", 4,
       "whole number below 2^63"},
      {R"({"a":{"dtype":"F32","shape":[4611686018427387904,4,4],"data_offsets":[0,4]}})", 4,
       "more than 2^64"},
      {R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0, "more than 2^64"},
      {R"({"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}})", 4,
       "more than 16"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4,
       "shape takes 8 bytes, data_offsets give it 4"},
      {R"({"a":{"dtype":"F16","shape":[1],"data_offsets":[0,4]}})", 4, "shape takes 2 bytes"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4, "must be two numbers"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}})", 8, "must be two numbers"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4, "outside the file's 4 bytes"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 4, "outside the file's 4 bytes"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[9223372036854775800,9223372036854775804]}})", 4,
       "outside"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8, "hole"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 5, "belong to no tensor"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
       4, "overlap"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       8, "overlap"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       8, "tensor 'a': is there twice"},
      {R"({"a":{"dtype":"F32","dtype":"F16","shape":[1],"data_offsets":[0,4]}})", 4,
       "field 'dtype' is there twice"},
      {R"({"__metadata__":{"a":"1","a":"2"}})", 0, "metadata: field 'a' is there twice"},
      {R"({"__metadata__":{"a":1}})", 0, "metadata: a number stands"},
      {R"({"__metadata__":{"a":{}}})", 0, "metadata: an object stands"},
      {R"({"__metadata__":{},"__metadata__":{}})", 0, "twice"},
      {R"({"__metadata__":"x"})", 0, "text stands"},
      {R"({"new\nline":1})", 0, "tensor 'new?line'"},
  };
  for (const Hostile& hostile : cases) {
    SCOPED_TRACE(hostile.header);
    write(hostile.header, std::string(hostile.data, 'x'));
    const Status status = open().status();
    EXPECT_EQ(status.code(), StatusCode::invalid_argument);
    EXPECT_NE(status.message().find(hostile.expected), std::string::npos) << status.message();
    EXPECT_EQ(status.message().find(path_.string() + ": "), 0U) << status.message();
    EXPECT_EQ(status.message().find('\n'), std::string::npos) << status.message();
  }
}

TEST_F(SafeTensorsFile, RefusesBadLengthsOfTheHeader) {
  for (const std::size_t bytes : {0U, 1U, 7U}) {
    write_bytes(std::string(bytes, '\1'));
    EXPECT_NE(open().status().message().find("alone takes 8"), std::string::npos) << bytes;
  }
  for (const std::int64_t length :
       {std::int64_t{3}, std::int64_t{100'000'001}, std::int64_t{1} << 40, INT64_MAX}) {
    write("{}", "", length);
    EXPECT_NE(open().status().message().find("header length " + std::to_string(length)), std::string::npos)
        << length;
  }
  write_bytes(std::string(8, '\xff') + "{}");
  EXPECT_NE(open().status().message().find("header length 18446744073709551615"), std::string::npos);
  write("{}", "", 0);  // a header of no bytes, data behind it
  EXPECT_NE(open().status().message().find("must begin with '{'"), std::string::npos);
}

TEST_F(SafeTensorsFile, RefusesDeepNestingAtItsFirstStep) {
  write(nested(5'000'000), "");
  EXPECT_NE(open().status().message().find("a list stands"), std::string::npos);
}

TEST_F(SafeTensorsFile, RefusesEveryCutOfAGoodFile) {
  const std::string header =
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"__metadata__":{"k":"v"}})";
  write(header, "1234");
  ASSERT_TRUE(open().ok());
  const auto size = std::filesystem::file_size(path_);
  for (std::uintmax_t cut = size; cut-- > 0;) {
    std::filesystem::resize_file(path_, cut);
    ASSERT_FALSE(open().ok()) << cut;
  }
}

TEST_F(SafeTensorsFile, CutsLongNamesInMessages) {
  write("{\"" + std::string(5000, 'n') + "\":1}", "");
  const std::string message = open().status().message();
  EXPECT_LT(message.size(), path_.string().size() + 200);
  EXPECT_NE(message.find("n...'"), std::string::npos);
}

}  // namespace
}  // namespace headwise::lab
