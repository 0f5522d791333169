// Peaks of AVX2 with FMA: 8 floats an instruction.
#include "cpu/peaks.h"

#include <immintrin.h>

#include <cstdint>

#include "cpu/target_region.h"

HEADWISE_IMMINTRIN_BEGIN
HEADWISE_TARGET_BEGIN(HEADWISE_AVX2)
namespace headwise::cpu::avx2 {
namespace {

using Float = __m256;
constexpr int kLanes = 8;
constexpr int kSums = 12;

inline Float load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, Float x) { _mm256_storeu_ps(p, x); }
inline Float broadcast(float x) { return _mm256_set1_ps(x); }
inline Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
inline Float either(Float a, Float b) { return _mm256_or_ps(a, b); }

#include "cpu/simd/peaks.inl"

}  // namespace
}  // namespace headwise::cpu::avx2
HEADWISE_TARGET_END
HEADWISE_IMMINTRIN_END

namespace headwise::cpu {

const ArithmeticLoop kAvx2PeakF32{"avx2", "avx2", "f32", 2.0 * avx2::kSums* avx2::kLanes,
                                  avx2::multiply_add_rounds};
const ReadingLoop kAvx2Read{"avx2", avx2::read_bytes};

}  // namespace headwise::cpu
