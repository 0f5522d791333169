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
  // Reads the header alone. Anything that breaks the format (header beyond the file or 100 MB, text
  // that is no JSON, unknown fields or dtypes, shapes that do not fit their bytes, offsets outside
  // the file, overlaps, holes, duplicate names) is an error of one line: file, place, what is wrong.
  static Result<SafeTensors> open(const std::string& path);

  [[nodiscard]] const std::vector<SafeTensor>& tensors() const noexcept { return tensors_; }  // by offset
  [[nodiscard]] const std::map<std::string, std::string>& metadata() const noexcept { return metadata_; }
  [[nodiscard]] const SafeTensor* find(std::string_view name) const noexcept;  // null: no such tensor
  // Some of the tensor's bytes, from `offset` within it.
  Status read(const SafeTensor& tensor, std::size_t offset, std::size_t bytes, void* target) const;

 private:
  std::string path_;
  std::size_t data_begin_ = 0;  // in the file
  std::vector<SafeTensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace headwise::lab
