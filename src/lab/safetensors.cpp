#include "lab/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

namespace headwise::lab {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are taken as they lie in the file");

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr std::size_t kMaxNameInMessage = 80;

std::optional<DType> dtype_of_name(std::string_view text) {
  constexpr std::array<std::pair<std::string_view, DType>, 8> kNames{{{"F64", DType::f64},
                                                                      {"F32", DType::f32},
                                                                      {"F16", DType::f16},
                                                                      {"BF16", DType::bf16},
                                                                      {"F8_E4M3", DType::e4m3},
                                                                      {"I8", DType::int8},
                                                                      {"I32", DType::int32},
                                                                      {"BOOL", DType::boolean}}};
  for (const auto& [name, dtype] : kNames) {
    if (name == text) return dtype;
  }
  return std::nullopt;
}

// A name from the file, fit for one line of a message.
std::string quote(std::string_view text) {
  std::string out = "'";
  for (const char c : text.substr(0, kMaxNameInMessage)) out += c >= 0x20 && c != 0x7f ? c : '?';
  return out + (text.size() > kMaxNameInMessage ? "...'" : "'");
}

// Takes the header's JSON event by event, so that depth is bounded, duplicates are seen and nothing
// is built that the format does not have: {name: {dtype, shape, data_offsets}, "__metadata__": {}}.
class HeaderHandler : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::vector<SafeTensor> tensors;
  std::map<std::string, std::string> metadata;
  std::string error;

  bool null() override { return fail("null is nowhere allowed"); }
  bool boolean(bool /*value*/) override { return fail("true and false are nowhere allowed"); }
  bool number_integer(number_integer_t /*value*/) override {
    return fail("negative numbers are nowhere allowed");
  }
  bool number_float(number_float_t /*value*/, const string_t& text) override {
    return fail("number " + quote(text) + " must be a whole number below 2^63");
  }
  bool binary(binary_t& /*value*/) override { return fail("binary values are nowhere allowed"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ != Place::array) return fail("a number stands where none is allowed");
    if (value > static_cast<std::uint64_t>(INT64_MAX)) return fail("numbers must be below 2^63");
    if (numbers_.size() >= 16) return fail("lists of more than 16 numbers are not allowed");
    numbers_.push_back(value);
    return true;
  }

  bool string(string_t& value) override {
    if (place_ == Place::metadata) {
      metadata[key_] = value;
      return true;
    }
    if (place_ != Place::tensor || key_ != "dtype") return fail("text stands where none is allowed");
    const std::optional<DType> dtype = dtype_of_name(value);
    if (!dtype) return fail("dtype " + quote(value) + " is not one of F64 F32 F16 BF16 F8_E4M3 I8 I32 BOOL");
    tensors.back().dtype = *dtype;
    return true;
  }

  bool start_object(std::size_t /*count*/) override {
    switch (place_) {
      case Place::outside: place_ = Place::header; return true;
      case Place::header:
        fields_.clear();
        if (key_ == "__metadata__") {
          place_ = Place::metadata;
        } else {
          place_ = Place::tensor;
          tensors.emplace_back().name = key_;
        }
        return true;
      default: return fail("an object stands where none is allowed");
    }
  }

  bool key(string_t& value) override {
    if (place_ == Place::header) {
      if (!names_.insert(value).second) return fail_as(value, "is there twice");
      scope_ = value;
    } else if (!fields_.insert(value).second) {
      return fail("field " + quote(value) + " is there twice");
    } else if (place_ == Place::tensor && value != "dtype" && value != "shape" && value != "data_offsets") {
      return fail("field " + quote(value) + " is unknown: expected dtype, shape and data_offsets");
    }
    key_ = value;
    return true;
  }

  bool end_object() override {
    if (place_ == Place::tensor && fields_.size() != 3)
      return fail("dtype, shape and data_offsets are needed, all three");
    place_ = place_ == Place::header ? Place::outside : Place::header;
    return true;
  }

  bool start_array(std::size_t /*count*/) override {
    if (place_ != Place::tensor || key_ == "dtype") return fail("a list stands where none is allowed");
    place_ = Place::array;
    numbers_.clear();
    return true;
  }

  bool end_array() override {
    place_ = Place::tensor;
    SafeTensor& tensor = tensors.back();
    if (key_ == "shape") {
      tensor.shape.assign(numbers_.begin(), numbers_.end());
      return true;
    }
    if (numbers_.size() != 2) return fail("data_offsets must be two numbers");
    tensor.begin = numbers_[0];
    tensor.end = numbers_[1];
    return true;
  }

  bool parse_error(std::size_t position, const std::string& /*token*/,
                   const nlohmann::detail::exception& /*e*/) override {
    if (error.empty()) error = "header is no JSON: unexpected text at byte " + std::to_string(8 + position);
    return false;
  }

 private:
  enum class Place : std::uint8_t { outside, header, metadata, tensor, array };

  bool fail(const std::string& what) { return fail_as(scope_, what); }
  bool fail_as(std::string_view scope, const std::string& what) {
    error = (scope.empty()             ? "header"
             : scope == "__metadata__" ? "metadata"
                                       : "tensor " + quote(scope)) +
            ": " + what;
    return false;
  }

  Place place_ = Place::outside;
  std::string key_, scope_;
  std::set<std::string> names_, fields_;
  std::vector<std::uint64_t> numbers_;
};

// Sizes, bounds, and that the tensors cover the data once and wholly. Sorts by offset.
std::string check_tensors(std::vector<SafeTensor>& tensors, std::uint64_t data_bytes) {
  for (const SafeTensor& tensor : tensors) {
    const std::string where = "tensor " + quote(tensor.name) + ": ";
    if (tensor.begin > tensor.end || tensor.end > data_bytes) {
      return where + "data_offsets " + std::to_string(tensor.begin) + " to " + std::to_string(tensor.end) +
             " are outside the file's " + std::to_string(data_bytes) + " bytes of data";
    }
    std::uint64_t bytes = size_of(tensor.dtype);
    bool overflow = false;
    for (const std::int64_t extent : tensor.shape) {
      overflow = overflow || __builtin_mul_overflow(bytes, static_cast<std::uint64_t>(extent), &bytes);
    }
    if (overflow || bytes != tensor.end - tensor.begin) {
      return where + "shape takes " + (overflow ? "more than 2^64" : std::to_string(bytes)) +
             " bytes, data_offsets give it " + std::to_string(tensor.end - tensor.begin);
    }
  }
  std::sort(tensors.begin(), tensors.end(), [](const SafeTensor& a, const SafeTensor& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  std::uint64_t covered = 0;
  for (const SafeTensor& tensor : tensors) {
    if (tensor.begin != covered) {
      return "tensor " + quote(tensor.name) + ": begins at " + std::to_string(tensor.begin) +
             ", data before it ends at " + std::to_string(covered) +
             (tensor.begin < covered ? ": overlap" : ": hole");
    }
    covered = tensor.end;
  }
  if (covered != data_bytes) {
    return "data: " + std::to_string(data_bytes - covered) + " bytes at the end belong to no tensor";
  }
  return {};
}

std::string read_header(std::ifstream& file, std::uint64_t file_bytes, std::string& header) {
  std::array<unsigned char, 8> prefix{};
  if (file_bytes < 8 || !file.read(reinterpret_cast<char*>(prefix.data()), 8)) {
    return "file has " + std::to_string(file_bytes) + " bytes, a header's length alone takes 8";
  }
  std::uint64_t length = 0;  // little endian
  for (std::size_t i = 8; i-- > 0;) length = length << 8 | prefix[i];
  if (length > kMaxHeaderBytes || length > file_bytes - 8) {
    return "header length " + std::to_string(length) + " at byte 0: the file has " +
           std::to_string(file_bytes - 8) + " bytes after it, and a header at most " +
           std::to_string(kMaxHeaderBytes);
  }
  header.resize(length);
  if (!file.read(header.data(), static_cast<std::streamsize>(length))) return "header cannot be read";
  if (header.empty() || header.front() != '{') return "header must begin with '{' at byte 8";
  return {};
}

}  // namespace

std::int64_t SafeTensor::elements() const noexcept {
  std::int64_t n = 1;
  for (const std::int64_t extent : shape) n *= extent;
  return n;
}

const SafeTensor* SafeTensors::find(std::string_view name) const noexcept {
  for (const SafeTensor& tensor : tensors_) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

Result<SafeTensors> SafeTensors::open(const std::string& path) {
  std::error_code problem;
  if (!std::filesystem::is_regular_file(path, problem)) {
    return Status::unavailable(path + ": no such file; tools/capture_qkv.py makes such files");
  }
  const std::uint64_t file_bytes = std::filesystem::file_size(path, problem);
  std::ifstream file(path, std::ios::binary);
  if (problem || !file) return Status::unavailable(path + ": cannot be opened for reading");

  const auto refuse = [&](const std::string& what) { return Status::invalid_argument(path + ": " + what); };
  std::string header;
  if (const std::string error = read_header(file, file_bytes, header); !error.empty()) return refuse(error);
  HeaderHandler handler;
  if (!nlohmann::json::sax_parse(header, &handler)) return refuse(handler.error);

  const std::uint64_t data_bytes = file_bytes - 8 - header.size();
  if (const std::string error = check_tensors(handler.tensors, data_bytes); !error.empty())
    return refuse(error);
  SafeTensors result;
  result.path_ = path;
  result.data_begin_ = 8 + header.size();
  result.tensors_ = std::move(handler.tensors);
  result.metadata_ = std::move(handler.metadata);
  return result;
}

Status SafeTensors::read(const SafeTensor& tensor, std::size_t offset, std::size_t bytes,
                         void* target) const {
  const std::size_t size = tensor.end - tensor.begin;
  if (offset > size || bytes > size - offset) {
    return Status::invalid_argument(path_ + ": tensor " + quote(tensor.name) + ": " + std::to_string(bytes) +
                                    " bytes from " + std::to_string(offset) + " on asked for, it has " +
                                    std::to_string(size));
  }
  std::ifstream file(path_, std::ios::binary);
  file.seekg(static_cast<std::streamoff>(data_begin_ + tensor.begin + offset));
  if (!file.read(static_cast<char*>(target), static_cast<std::streamsize>(bytes))) {
    return Status::unavailable(path_ + ": tensor " + quote(tensor.name) + ": cannot be read");
  }
  return {};
}

}  // namespace headwise::lab
