// What functions on tensors in host memory share: checks of their arguments, elements of three dtypes as
// floats, and how many threads a copy is worth.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <vector>

#include "attention/tensor_checks.h"
#include "headwise/attention.h"
#include "headwise/dtype.h"

namespace headwise {

// check_layout, host memory (else `unsupported`), dtype and natural alignment.
Status check_host_tensor(const Argument& tensor, int rank, std::string_view layout,
                         std::initializer_list<DType> dtypes, std::string_view meaning = {});
// All extents as those of another tensor of the same rank, but for the last `unlike` ones.
Status check_extents_as(const Argument& tensor, const Argument& other, int unlike = 0);
Status check_no_overlap(const Argument& written, const Argument& other);
Status check_threads(const Execution& execution);

// The same elements in the same places, so that element i of one may be written once element i of the other
// was read.
bool same_view(const TensorView& a, const TensorView& b);

// 1 where starting threads would take longer than touching so many elements does.
int threads_for(const Execution& execution, std::int64_t elements);

// False, with nothing changed, where memory for so many elements is lacking.
bool try_resize(std::vector<float>& values, std::int64_t elements);

// function(T{}), T being the type of f32, f16 or bf16.
template <class Function>
auto with_type_of(DType dtype, const Function& function) {
  switch (dtype) {
    case DType::f16: return function(float16{});
    case DType::bf16: return function(bfloat16{});
    default: return function(float{});
  }
}

}  // namespace headwise
