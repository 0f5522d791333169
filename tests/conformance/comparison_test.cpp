// The comparison itself: what it lets pass and what not.
#include "conformance/comparison.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace headwise::conformance {
namespace {

Tensor tensor(DType dtype, const std::vector<double>& values) {
  Tensor made = make_tensor(dtype, {static_cast<std::int64_t>(values.size())});
  for (std::size_t i = 0; i < values.size(); ++i)
    store_element(dtype, made.bytes.data(), static_cast<std::int64_t>(i), values[i]);
  return made;
}

Verdict verdict(DType dtype, const std::vector<double>& actual, const std::vector<double>& expected) {
  return compare(tensor(dtype, actual), tensor(dtype, expected), 1e-3, 1e-7).verdict;
}

TEST(Comparison, KeepsToTheTolerance) {
  EXPECT_EQ(verdict(DType::f32, {1.0009, 0}, {1, 5e-8}), Verdict::passed);
  EXPECT_EQ(verdict(DType::f32, {1.0011, 0}, {1, 0}), Verdict::failed);
  EXPECT_EQ(verdict(DType::f32, {1, 2e-7}, {1, 0}), Verdict::failed);
}

TEST(Comparison, NeighboursOfSixteenBitsAreToldApart) {
  // bf16 steps by 1/128 from 1 on and by 1/256 below; f16's steps from 1 on, 1/1024, are within 1e-3.
  EXPECT_EQ(verdict(DType::bf16, {1 + 1.0 / 128}, {1}), Verdict::one_step);
  EXPECT_EQ(verdict(DType::bf16, {1 - 1.0 / 256}, {1}), Verdict::one_step);
  EXPECT_EQ(verdict(DType::bf16, {1 + 2.0 / 128}, {1}), Verdict::bf16_tolerance);
  EXPECT_EQ(verdict(DType::bf16, {1 - 3.0 / 256, 1 + 1.0 / 128}, {1, 1}), Verdict::bf16_tolerance);
  EXPECT_EQ(verdict(DType::bf16, {1 + 3.0 / 128}, {1}), Verdict::failed);
  EXPECT_EQ(verdict(DType::bf16, {1 + 1.0 / 128, 2}, {1, 1}), Verdict::failed);
  EXPECT_EQ(verdict(DType::f16, {1 + 1.0 / 1024}, {1}), Verdict::passed);
  EXPECT_EQ(verdict(DType::f16, {1 + 2.0 / 1024}, {1}), Verdict::failed);
  EXPECT_EQ(verdict(DType::f32, {std::nextafter(1.0F, 2.0F)}, {1}), Verdict::passed);
  EXPECT_EQ(verdict(DType::bf16, {-0x1p-133}, {0x1p-133}), Verdict::passed);  // within atol
}

TEST(Comparison, NonFiniteValuesStandWhereExpected) {
  const double inf = std::numeric_limits<double>::infinity();
  const double nan = std::nan("");
  EXPECT_EQ(verdict(DType::f32, {nan, inf, -inf}, {nan, inf, -inf}), Verdict::passed);
  EXPECT_EQ(verdict(DType::f32, {0}, {nan}), Verdict::failed);
  EXPECT_EQ(verdict(DType::f32, {nan}, {0}), Verdict::failed);
  EXPECT_EQ(verdict(DType::f32, {inf}, {-inf}), Verdict::failed);
  EXPECT_EQ(verdict(DType::f16, {inf}, {65504}), Verdict::failed);
  EXPECT_EQ(verdict(DType::f16, {65504}, {inf}), Verdict::failed);
}

TEST(Comparison, ShapesAndDtypesMustAgree) {
  Tensor wide = tensor(DType::f32, {1, 2});
  wide.shape = {1, 2};
  EXPECT_EQ(compare(wide, tensor(DType::f32, {1, 2}), 1, 1).verdict, Verdict::failed);
  EXPECT_EQ(compare(tensor(DType::f16, {1}), tensor(DType::bf16, {1}), 1, 1).verdict, Verdict::failed);
}

TEST(Comparison, NamesTheElementFurthestOff) {
  const Comparison result = compare(tensor(DType::f32, {0, 3, 2}), tensor(DType::f32, {0, 1, 1}), 1e-3, 1e-7);
  EXPECT_EQ(result.worst, "2 of 3 values; furthest off element 1: 3, expected 1");
}

}  // namespace
}  // namespace headwise::conformance
