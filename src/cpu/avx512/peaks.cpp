// Peaks of AVX-512: 16 floats an instruction.
#include "cpu/peaks.h"

#include <immintrin.h>

#include <cstdint>

#include "cpu/target_region.h"

HEADWISE_IMMINTRIN_BEGIN
HEADWISE_TARGET_BEGIN(HEADWISE_AVX512)
namespace headwise::cpu::avx512 {
namespace {

using Float = __m512;
constexpr int kLanes = 16;
constexpr int kSums = 24;

inline Float load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, Float x) { _mm512_storeu_ps(p, x); }
inline Float broadcast(float x) { return _mm512_set1_ps(x); }
inline Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
inline Float either(Float a, Float b) { return _mm512_or_ps(a, b); }

#include "cpu/simd/peaks.inl"

}  // namespace
}  // namespace headwise::cpu::avx512
HEADWISE_TARGET_END
HEADWISE_IMMINTRIN_END

namespace headwise::cpu {

const ArithmeticLoop kAvx512PeakF32{"avx512", "avx512", "f32", 2.0 * avx512::kSums* avx512::kLanes,
                                    avx512::multiply_add_rounds};
const ReadingLoop kAvx512Read{"avx512", avx512::read_bytes};

}  // namespace headwise::cpu
