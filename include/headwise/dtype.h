// Element types and the 16-bit floats. Conversions round to nearest, ties to even; a NaN stays a
// NaN (quiet, sign kept), overflow goes to infinity, subnormals are kept.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "headwise/status.h"

namespace [[gnu::visibility("default")]] headwise {

enum class DType : std::uint8_t { f64, f32, f16, bf16, e4m3, int8, int32, boolean };

constexpr std::size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f64: return 8;
    case DType::f32:
    case DType::int32: return 4;
    case DType::f16:
    case DType::bf16: return 2;
    case DType::e4m3:
    case DType::int8:
    case DType::boolean: return 1;
  }
  return 0;
}

constexpr std::string_view name(DType dtype) {
  switch (dtype) {
    case DType::f64: return "f64";
    case DType::f32: return "f32";
    case DType::f16: return "f16";
    case DType::bf16: return "bf16";
    case DType::e4m3: return "e4m3";
    case DType::int8: return "int8";
    case DType::int32: return "int32";
    case DType::boolean: return "bool";
  }
  return "unknown";
}

// "f32" and so on; also accepts the usual long names ("float32", "bfloat16", "fp16").
Result<DType> parse_dtype(std::string_view text);

// IEEE binary16 and bfloat16 as storage: convert, compute in float, convert back.
struct float16 {
  std::uint16_t bits = 0;
};
struct bfloat16 {
  std::uint16_t bits = 0;
};

inline float to_float(float16 value) noexcept {
  const std::uint32_t body = value.bits & 0x7fffU;
  // Read as a float, the shifted bits are the value over 2^112, of subnormals too; the product is exact.
  std::uint32_t magnitude = std::bit_cast<std::uint32_t>(std::bit_cast<float>(body << 13) * 0x1p112F);
  if (body >= 0x7c00U) magnitude = 0x7f800000U | (body << 13) | (body > 0x7c00U ? 0x400000U : 0U);
  return std::bit_cast<float>((static_cast<std::uint32_t>(value.bits & 0x8000U) << 16) | magnitude);
}
inline float to_float(bfloat16 value) noexcept {
  const bool nan = (value.bits & 0x7fffU) > 0x7f80U;
  return std::bit_cast<float>((static_cast<std::uint32_t>(value.bits) << 16) | (nan ? 0x400000U : 0U));
}
constexpr float to_float(float value) noexcept { return value; }
constexpr double to_double(double value) noexcept { return value; }
constexpr double to_double(float value) noexcept { return value; }
inline double to_double(float16 value) noexcept { return to_float(value); }
inline double to_double(bfloat16 value) noexcept { return to_float(value); }

// T is one of double, float, float16, bfloat16. From double there is one rounding, not two.
template <class T>
T from_double(double value) noexcept;
template <>
double from_double<double>(double value) noexcept;
template <>
float from_double<float>(double value) noexcept;
template <>
float16 from_double<float16>(double value) noexcept;
template <>
bfloat16 from_double<bfloat16>(double value) noexcept;

template <class T>
inline constexpr DType dtype_of = DType::f32;
template <>
inline constexpr DType dtype_of<double> = DType::f64;
template <>
inline constexpr DType dtype_of<float16> = DType::f16;
template <>
inline constexpr DType dtype_of<bfloat16> = DType::bf16;
template <>
inline constexpr DType dtype_of<std::int8_t> = DType::int8;
template <>
inline constexpr DType dtype_of<std::int32_t> = DType::int32;
template <>
inline constexpr DType dtype_of<bool> = DType::boolean;

// One element of an array of f64, f32, f16 or bf16, as double; and the reverse. Other dtypes: 0, no write.
double load_element(DType dtype, const void* data, std::int64_t index) noexcept;
void store_element(DType dtype, void* data, std::int64_t index, double value) noexcept;

}  // namespace headwise
