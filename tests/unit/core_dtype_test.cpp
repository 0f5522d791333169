// All 65,536 codes of each 16-bit type and the one rounding from double, against arithmetic on
// exponents and fractions (ldexp) that shares nothing with the library's bit shifting.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>

#include "headwise/dtype.h"

namespace headwise {
namespace {

struct F16 {
  using type = float16;
  static constexpr int kExponentBits = 5;
  static constexpr int kMantissaBits = 10;
};
struct BF16 {
  using type = bfloat16;
  static constexpr int kExponentBits = 8;
  static constexpr int kMantissaBits = 7;
};

// The value of a code by the definition of IEEE interchange formats.
template <class Format>
double value_of(unsigned code) {
  constexpr int kBias = (1 << (Format::kExponentBits - 1)) - 1;
  const int exponent = static_cast<int>(code >> Format::kMantissaBits) & ((1 << Format::kExponentBits) - 1);
  const int fraction = static_cast<int>(code) & ((1 << Format::kMantissaBits) - 1);
  const double sign = code >= 0x8000U ? -1.0 : 1.0;
  if (exponent == (1 << Format::kExponentBits) - 1) {
    return sign * (fraction == 0 ? std::numeric_limits<double>::infinity()
                                 : std::numeric_limits<double>::quiet_NaN());
  }
  const int leading = exponent == 0 ? 0 : 1 << Format::kMantissaBits;
  return sign * std::ldexp(leading + fraction, std::max(exponent, 1) - kBias - Format::kMantissaBits);
}

template <class Format>
unsigned infinity_code() {
  return ((1U << Format::kExponentBits) - 1) << Format::kMantissaBits;
}

// Nearest code to a finite magnitude by bisection over the ordered codes, ties to the even one.
// The step beyond the largest finite value counts as infinity, as IEEE rounding has it.
template <class Format>
unsigned nearest_code(double magnitude) {
  unsigned low = 0;
  unsigned high = infinity_code<Format>();
  while (high - low > 1) {
    const unsigned middle = (low + high) / 2;
    (value_of<Format>(middle) <= magnitude ? low : high) = middle;
  }
  const double below = value_of<Format>(low);
  const double above =
      high == infinity_code<Format>()
          ? std::ldexp(1.0, 1 << (Format::kExponentBits - 1))  // where the next binade would start
          : value_of<Format>(high);
  const double to_below = magnitude - below;  // exact: neighbours share most of their bits
  const double to_above = above - magnitude;
  if (to_below != to_above) return to_below < to_above ? low : high;
  return (low & 1U) == 0 ? low : high;
}

template <class Format>
class SixteenBits : public ::testing::Test {};
using Formats = ::testing::Types<F16, BF16>;
TYPED_TEST_SUITE(SixteenBits, Formats);

TYPED_TEST(SixteenBits, EveryCodeDecodesToItsDefinition) {
  using Type = typename TypeParam::type;
  for (unsigned code = 0; code < 0x10000U; ++code) {
    const float value = to_float(Type{static_cast<std::uint16_t>(code)});
    const double expected = value_of<TypeParam>(code);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(value)) << code;
      ASSERT_NE(std::bit_cast<std::uint32_t>(value) & 0x400000U, 0U) << "quiet: " << code;
    } else {
      ASSERT_EQ(static_cast<double>(value), expected) << code;
    }
    ASSERT_EQ(std::signbit(value), code >= 0x8000U) << code;
  }
}

TYPED_TEST(SixteenBits, EveryCodeSurvivesTheRoundTrip) {
  using Type = typename TypeParam::type;
  const unsigned quiet = 1U << (TypeParam::kMantissaBits - 1);
  for (unsigned code = 0; code < 0x10000U; ++code) {
    const unsigned back = from_double<Type>(to_double(Type{static_cast<std::uint16_t>(code)})).bits;
    const bool nan = (code & 0x7fffU) > infinity_code<TypeParam>();
    ASSERT_EQ(back, nan ? (code | quiet) : code) << code;
  }
}

TYPED_TEST(SixteenBits, MiddlesBetweenNeighboursGoToTheEvenOne) {
  using Type = typename TypeParam::type;
  for (unsigned code = 0; code + 1 < infinity_code<TypeParam>(); ++code) {
    const double middle = (value_of<TypeParam>(code) + value_of<TypeParam>(code + 1)) / 2;
    const unsigned even = (code & 1U) == 0 ? code : code + 1;
    ASSERT_EQ(from_double<Type>(middle).bits, even) << code;
    ASSERT_EQ(from_double<Type>(-middle).bits, even | 0x8000U) << code;
    // One rounding: the smallest step of a double off the middle decides, which float would lose.
    ASSERT_EQ(from_double<Type>(std::nextafter(middle, 0.0)).bits, code) << code;
    ASSERT_EQ(from_double<Type>(std::nextafter(middle, 1e300)).bits, code + 1) << code;
  }
}

TYPED_TEST(SixteenBits, RandomDoublesGoToTheNearest) {
  using Type = typename TypeParam::type;
  std::mt19937_64 random(20240817);
  std::uniform_real_distribution<double> fraction(1.0, 2.0);
  std::uniform_int_distribution<int> exponent(-160, 140);
  for (int i = 0; i < 200000; ++i) {
    const double magnitude = std::ldexp(fraction(random), exponent(random));
    ASSERT_EQ(from_double<Type>(magnitude).bits, nearest_code<TypeParam>(magnitude)) << magnitude;
    ASSERT_EQ(from_double<Type>(-magnitude).bits, nearest_code<TypeParam>(magnitude) | 0x8000U) << magnitude;
  }
}

TYPED_TEST(SixteenBits, Extremes) {
  using Type = typename TypeParam::type;
  const unsigned infinity = infinity_code<TypeParam>();
  const double largest = value_of<TypeParam>(infinity - 1);
  const double beyond = std::ldexp(1.0, 1 << (TypeParam::kExponentBits - 1));
  const double edge = (largest + beyond) / 2;  // from here on: infinity
  EXPECT_EQ(from_double<Type>(largest).bits, infinity - 1);
  EXPECT_EQ(from_double<Type>(std::nextafter(edge, 0.0)).bits, infinity - 1);
  EXPECT_EQ(from_double<Type>(edge).bits, infinity);
  EXPECT_EQ(from_double<Type>(1e300).bits, infinity);
  EXPECT_EQ(from_double<Type>(-1e300).bits, infinity | 0x8000U);
  EXPECT_EQ(from_double<Type>(std::numeric_limits<double>::infinity()).bits, infinity);
  EXPECT_EQ(from_double<Type>(0.0).bits, 0U);
  EXPECT_EQ(from_double<Type>(-0.0).bits, 0x8000U);
  EXPECT_EQ(from_double<Type>(std::numeric_limits<double>::denorm_min()).bits, 0U);
  EXPECT_EQ(from_double<Type>(-std::numeric_limits<double>::min()).bits, 0x8000U);
  const double smallest = value_of<TypeParam>(1);
  EXPECT_EQ(from_double<Type>(smallest).bits, 1U);
  EXPECT_EQ(from_double<Type>(smallest / 2).bits, 0U);
  EXPECT_EQ(from_double<Type>(std::nextafter(smallest / 2, 1.0)).bits, 1U);
}

TYPED_TEST(SixteenBits, NaNStaysQuietAndKeepsItsSign) {
  using Type = typename TypeParam::type;
  const unsigned infinity = infinity_code<TypeParam>();
  const unsigned quiet = 1U << (TypeParam::kMantissaBits - 1);
  // A payload in the lowest bit alone must not vanish and leave an infinity.
  for (const std::uint64_t bits :
       {0x7ff8000000000000U, 0x7ff0000000000001U, 0xfff8000000000000U, 0xfff0000000000001U}) {
    const unsigned code = from_double<Type>(std::bit_cast<double>(bits)).bits;
    EXPECT_GT(code & 0x7fffU, infinity);
    EXPECT_NE(code & quiet, 0U);
    EXPECT_EQ(code >> 15, bits >> 63);
  }
}

TEST(DType, Float32FromDoubleRoundsOnce) {
  EXPECT_EQ(from_double<float>(1.0 + 0x1p-24), 1.0F);  // tie to even
  EXPECT_EQ(from_double<float>(1.0 + 0x1p-24 + 0x1p-52), 1.0F + 0x1p-23F);
  EXPECT_TRUE(std::isinf(from_double<float>(1e300)));
  EXPECT_EQ(from_double<double>(0.1), 0.1);
}

TEST(DType, NamesAndSizesParseBack) {
  for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::bf16, DType::e4m3, DType::int8,
                            DType::int32, DType::boolean}) {
    const Result<DType> parsed = parse_dtype(name(dtype));
    ASSERT_TRUE(parsed.ok()) << name(dtype);
    EXPECT_EQ(*parsed, dtype);
  }
  EXPECT_EQ(*parse_dtype("bfloat16"), DType::bf16);
  EXPECT_EQ(*parse_dtype("float32"), DType::f32);
  EXPECT_EQ(*parse_dtype("fp16"), DType::f16);
}

TEST(DType, UnknownNameSuggestsTheNearest) {
  const Result<DType> parsed = parse_dtype("bfloat61");
  ASSERT_FALSE(parsed.ok());
  EXPECT_EQ(parsed.status().code(), StatusCode::invalid_argument);
  EXPECT_NE(parsed.status().message().find("'bfloat61'"), std::string::npos);
  EXPECT_NE(parsed.status().message().find("did you mean 'bfloat16'"), std::string::npos);
  EXPECT_FALSE(parse_dtype("").ok());
  EXPECT_FALSE(parse_dtype("f32 ").ok());
}

TEST(DType, ElementsLoadAndStoreByIndex) {
  for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::bf16}) {
    std::uint64_t memory[4] = {};
    store_element(dtype, memory, 1, -1.5);
    store_element(dtype, memory, 2, 0.25);
    EXPECT_EQ(load_element(dtype, memory, 0), 0.0) << name(dtype);
    EXPECT_EQ(load_element(dtype, memory, 1), -1.5) << name(dtype);
    EXPECT_EQ(load_element(dtype, memory, 2), 0.25) << name(dtype);
    EXPECT_EQ(load_element(dtype, memory, 3), 0.0) << name(dtype);
  }
  std::int32_t integer = 7;
  store_element(DType::int32, &integer, 0, 3.0);
  EXPECT_EQ(integer, 7);
  EXPECT_EQ(load_element(DType::int32, &integer, 0), 0.0);
}

}  // namespace
}  // namespace headwise
