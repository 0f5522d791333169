#include "headwise/dtype.h"

#include <array>
#include <bit>
#include <cstring>
#include <string>

#include "core/text.h"

namespace headwise {
namespace {

// A 16-bit float with this many exponent and mantissa bits, from the bits of a double, rounded
// once. Works on integers alone, so that neither rounding mode nor flush-to-zero matter.
template <int kExponentBits, int kMantissaBits>
std::uint16_t encode(double value) noexcept {
  static_assert(1 + kExponentBits + kMantissaBits == 16);
  constexpr std::uint32_t kInfinity = ((1U << kExponentBits) - 1) << kMantissaBits;
  constexpr std::uint32_t kQuiet = 1U << (kMantissaBits - 1);
  constexpr int kBias = (1 << (kExponentBits - 1)) - 1;
  constexpr std::uint64_t kHidden = std::uint64_t{1} << 52;

  const auto bits = std::bit_cast<std::uint64_t>(value);
  const auto sign = static_cast<std::uint32_t>(bits >> 63) << 15;
  const int biased = static_cast<int>((bits >> 52) & 0x7ff);
  const std::uint64_t fraction = bits & (kHidden - 1);
  if (biased == 0x7ff) {
    const auto payload = static_cast<std::uint32_t>(fraction >> (52 - kMantissaBits));
    return static_cast<std::uint16_t>(sign | kInfinity | (fraction == 0 ? 0 : kQuiet | payload));
  }
  int exponent = biased - 1023 + kBias;
  if (exponent >= (1 << kExponentBits) - 1) return static_cast<std::uint16_t>(sign | kInfinity);
  int shift = 52 - kMantissaBits;
  if (exponent <= 0) {  // subnormal in the target: the point moves, the exponent field is 0
    shift += 1 - exponent;
    exponent = 0;
  }
  // The significand is below 2^53, so below half of 2^shift; this includes subnormal doubles.
  if (shift >= 54) return static_cast<std::uint16_t>(sign);
  const std::uint64_t significand = fraction | kHidden;
  const std::uint64_t rest = significand & ((std::uint64_t{1} << shift) - 1);
  const std::uint64_t half = std::uint64_t{1} << (shift - 1);
  auto kept = static_cast<std::uint32_t>(significand >> shift);
  if (rest > half || (rest == half && (kept & 1) != 0)) ++kept;
  // Adding lets a carry out of the mantissa raise the exponent, up to infinity.
  const std::uint32_t base = exponent == 0 ? 0 : static_cast<std::uint32_t>(exponent - 1) << kMantissaBits;
  return static_cast<std::uint16_t>(sign | (base + kept));
}

struct NamedDType {
  std::string_view text;
  DType dtype;
};
constexpr std::array kDTypeNames = {
    NamedDType{"f64", DType::f64},
    NamedDType{"f32", DType::f32},
    NamedDType{"f16", DType::f16},
    NamedDType{"bf16", DType::bf16},
    NamedDType{"e4m3", DType::e4m3},
    NamedDType{"int8", DType::int8},
    NamedDType{"int32", DType::int32},
    NamedDType{"bool", DType::boolean},
    NamedDType{"float64", DType::f64},
    NamedDType{"fp64", DType::f64},
    NamedDType{"double", DType::f64},
    NamedDType{"float32", DType::f32},
    NamedDType{"fp32", DType::f32},
    NamedDType{"float", DType::f32},
    NamedDType{"float16", DType::f16},
    NamedDType{"fp16", DType::f16},
    NamedDType{"half", DType::f16},
    NamedDType{"bfloat16", DType::bf16},
    NamedDType{"float8_e4m3fn", DType::e4m3},
    NamedDType{"fp8_e4m3", DType::e4m3},
    NamedDType{"i8", DType::int8},
    NamedDType{"i32", DType::int32},
    NamedDType{"boolean", DType::boolean},
};

template <class T>
T load(const void* data, std::int64_t index) noexcept {
  T value;
  std::memcpy(&value, static_cast<const char*>(data) + index * static_cast<std::int64_t>(sizeof(T)),
              sizeof(T));
  return value;
}
template <class T>
void store(void* data, std::int64_t index, double value) noexcept {
  const T element = from_double<T>(value);
  std::memcpy(static_cast<char*>(data) + index * static_cast<std::int64_t>(sizeof(T)), &element, sizeof(T));
}

}  // namespace

Result<DType> parse_dtype(std::string_view text) {
  std::array<std::string_view, kDTypeNames.size()> names{};
  for (std::size_t i = 0; i < kDTypeNames.size(); ++i) {
    if (kDTypeNames[i].text == text) return kDTypeNames[i].dtype;
    names[i] = kDTypeNames[i].text;
  }
  return Status::invalid_argument("dtype '" + std::string(text) +
                                  "' is unknown: expected f64, f32, f16, bf16, e4m3, int8, int32 or bool" +
                                  core::did_you_mean(text, names));
}

template <>
double from_double<double>(double value) noexcept {
  return value;
}
template <>
float from_double<float>(double value) noexcept {
  return static_cast<float>(value);
}
template <>
float16 from_double<float16>(double value) noexcept {
  return {encode<5, 10>(value)};
}
template <>
bfloat16 from_double<bfloat16>(double value) noexcept {
  return {encode<8, 7>(value)};
}

double load_element(DType dtype, const void* data, std::int64_t index) noexcept {
  switch (dtype) {
    case DType::f64: return load<double>(data, index);
    case DType::f32: return load<float>(data, index);
    case DType::f16: return to_double(load<float16>(data, index));
    case DType::bf16: return to_double(load<bfloat16>(data, index));
    default: return 0;
  }
}

void store_element(DType dtype, void* data, std::int64_t index, double value) noexcept {
  switch (dtype) {
    case DType::f64: return store<double>(data, index, value);
    case DType::f32: return store<float>(data, index, value);
    case DType::f16: return store<float16>(data, index, value);
    case DType::bf16: return store<bfloat16>(data, index, value);
    default: return;
  }
}

}  // namespace headwise
