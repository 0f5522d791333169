// Reads safetensors files (a JSON header and raw tensors), trusting nothing in them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "headwise/dtype.h"
#include "headwise/status.h"

namespace headwise::lab {

struct SafeTensor {
  std::string name;
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;
  std::size_t begin = 0, end = 0;  // in the file's data
  [[nodiscard]] std::int64_t elements() const noexcept;
};

class SafeTensors {
 public:
  // Reads the whole file. Anything that breaks the format (header beyond the file or 100 MB, text
  // that is no JSON, unknown fields or dtypes, shapes that do not fit their bytes, offsets outside
  // the data, overlaps, holes, duplicate names) is an error of one line: file, place, what is wrong.
  static Result<SafeTensors> open(const std::string& path);

  [[nodiscard]] const std::vector<SafeTensor>& tensors() const noexcept { return tensors_; }  // by offset
  [[nodiscard]] const std::map<std::string, std::string>& metadata() const noexcept { return metadata_; }
  [[nodiscard]] const SafeTensor* find(std::string_view name) const noexcept;  // null: no such tensor
  // The tensor's bytes; aligned to its element size only if the file's writer did so.
  [[nodiscard]] const std::byte* data(const SafeTensor& tensor) const noexcept { return data_.data() + tensor.begin; }

 private:
  std::vector<SafeTensor> tensors_;
  std::map<std::string, std::string> metadata_;
  std::vector<std::byte> data_;
};

}  // namespace headwise::lab
