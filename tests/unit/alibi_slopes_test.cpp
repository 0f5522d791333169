// ALiBi slopes against the numbers of the paper and its published models.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "headwise/headwise.h"

namespace headwise {
namespace {

TEST(AlibiSlopes, PowersOfTwoAreTheGeometricSequenceOfThePaper) {
  // Section 3: for 8 heads 1/2^1 .. 1/2^8, for 16 heads 1/2^0.5, 1/2^1, 1/2^1.5 .. 1/2^8.
  EXPECT_EQ(standard_alibi_slopes(8),
            (std::vector<float>{0.5F, 0.25F, 0.125F, 0.0625F, 0.03125F, 0.015625F, 0.0078125F, 0.00390625F}));
  const std::vector<float> sixteen = standard_alibi_slopes(16);
  ASSERT_EQ(sixteen.size(), 16U);
  for (std::size_t h = 0; h < 16; ++h)
    EXPECT_FLOAT_EQ(sixteen[h], static_cast<float>(std::pow(2.0, -0.5 * static_cast<double>(h + 1)))) << h;
  EXPECT_EQ(standard_alibi_slopes(1), std::vector<float>{0x1p-8F});
  EXPECT_EQ(standard_alibi_slopes(2), (std::vector<float>{0x1p-4F, 0x1p-8F}));
}

TEST(AlibiSlopes, OtherCountsTakeEverySecondSlopeOfTwiceThePower) {
  const std::vector<float> twelve = standard_alibi_slopes(12);
  const std::vector<float> eight = standard_alibi_slopes(8);
  const std::vector<float> sixteen = standard_alibi_slopes(16);
  ASSERT_EQ(twelve.size(), 12U);
  for (std::size_t h = 0; h < 8; ++h) EXPECT_EQ(twelve[h], eight[h]) << h;
  for (std::size_t h = 0; h < 4; ++h) EXPECT_EQ(twelve[8 + h], sixteen[2 * h]) << h;
  EXPECT_EQ(standard_alibi_slopes(3), (std::vector<float>{0x1p-4F, 0x1p-8F, 0x1p-2F}));
}

TEST(AlibiSlopes, EveryCountHasDistinctSlopesBelowOne) {
  for (std::int64_t heads = 1; heads <= 130; ++heads) {
    const std::vector<float> slopes = standard_alibi_slopes(heads);
    ASSERT_EQ(static_cast<std::int64_t>(slopes.size()), heads);
    for (std::size_t a = 0; a < slopes.size(); ++a) {
      EXPECT_GT(slopes[a], 0) << heads;
      EXPECT_LT(slopes[a], 1) << heads;
      for (std::size_t b = 0; b < a; ++b) EXPECT_NE(slopes[a], slopes[b]) << heads << ": " << a << ", " << b;
    }
  }
}

TEST(AlibiSlopes, NoHeadsAndMoreThanMemoryHoldsAreEmpty) {
  EXPECT_TRUE(standard_alibi_slopes(0).empty());
  EXPECT_TRUE(standard_alibi_slopes(-4).empty());
  EXPECT_TRUE(standard_alibi_slopes(std::int64_t{1} << 62).empty());
}

}  // namespace
}  // namespace headwise
