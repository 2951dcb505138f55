// Version and CPU dispatch of the library.
#include "splatsense.h"

SS_API int ss_abi_version() { return SS_ABI_VERSION; }

SS_API int ss_build_level() { return SS_BUILD_LEVEL; }

SS_API int ss_cpu_level() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512cd");
  return avx2 ? (avx512 ? 2 : 1) : 0;
#else
  return 0;
#endif
}
