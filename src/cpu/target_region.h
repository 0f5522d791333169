// Compiles the functions between BEGIN and END for an instruction set, whatever the file's flags.
// Flags on files would leak AVX code into inline functions of the standard library that the linker
// may then hand to baseline code. Inside a region: no template from a header outside it (it would
// be compiled for the baseline, with another vector calling convention); textual .inl files only.
#pragma once

#define HEADWISE_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define HEADWISE_TARGET_BEGIN(features) \
  HEADWISE_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define HEADWISE_TARGET_END HEADWISE_PRAGMA(clang attribute pop)
#else
#define HEADWISE_TARGET_BEGIN(features) \
  HEADWISE_PRAGMA(GCC push_options) HEADWISE_PRAGMA(GCC target(features))
#define HEADWISE_TARGET_END HEADWISE_PRAGMA(GCC pop_options)
#endif

// What the kernels of a folder may use; core/cpu_features.h asks the processor for the same.
#define HEADWISE_AVX2 "avx2,fma,f16c"
#define HEADWISE_AVX512 "avx512f,avx512bw,avx512dq,avx512vl,fma,avx2,f16c"

// g++ 12's own immintrin.h reads undefined vectors on purpose and is warned about it where it is
// inlined.
#if defined(__GNUC__) && !defined(__clang__)
#define HEADWISE_IMMINTRIN_BEGIN                                  \
  HEADWISE_PRAGMA(GCC diagnostic push)                            \
  HEADWISE_PRAGMA(GCC diagnostic ignored "-Wmaybe-uninitialized") \
  HEADWISE_PRAGMA(GCC diagnostic ignored "-Wuninitialized")
#define HEADWISE_IMMINTRIN_END HEADWISE_PRAGMA(GCC diagnostic pop)
#else
#define HEADWISE_IMMINTRIN_BEGIN
#define HEADWISE_IMMINTRIN_END
#endif
