// Peaks of the instructions that every processor of the architecture has, as compilers use them for plain C++
// (SSE2 on x86-64): what kernels of isa "scalar" work under.
#include "cpu/peaks.h"

#include <cstdint>
#include <cstring>

namespace headwise::cpu::scalar {
namespace {

using Float __attribute__((vector_size(16))) = float;
constexpr int kLanes = 4;
constexpr int kSums = 12;

inline Float load(const float* p) {
  Float x;
  std::memcpy(&x, p, sizeof x);
  return x;
}
inline void store(float* p, Float x) { std::memcpy(p, &x, sizeof x); }
inline Float broadcast(float x) { return Float{x, x, x, x}; }
// Two roundings where the architecture has no fused instruction.
inline Float fma(Float a, Float b, Float c) { return a * b + c; }
inline Float either(Float a, Float b) {
  using Bits __attribute__((vector_size(16))) = std::int32_t;
  return reinterpret_cast<Float>(reinterpret_cast<Bits>(a) | reinterpret_cast<Bits>(b));
}

#include "cpu/simd/peaks.inl"

}  // namespace
}  // namespace headwise::cpu::scalar

namespace headwise::cpu {

const ArithmeticLoop kScalarPeakF32{"scalar", "scalar", "f32", 2.0 * scalar::kSums* scalar::kLanes,
                                    scalar::multiply_add_rounds};
const ReadingLoop kScalarRead{"scalar", scalar::read_bytes};

}  // namespace headwise::cpu
