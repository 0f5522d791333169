// What LeakSanitizer may overlook. LLVM's OpenMP runtime keeps blocks of threads that called it and
// ended, for reuse, at addresses that LeakSanitizer cannot follow.
#if defined(__clang__)
extern "C" const char*
__lsan_default_suppressions();  // NOLINT(bugprone-reserved-identifier): LeakSanitizer's name
extern "C" const char* __lsan_default_suppressions() { return "leak:libomp.so\n"; }
#endif
