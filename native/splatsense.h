// The whole C ABI of the native library. Plain pointers and sizes, no torch, no exceptions across the boundary.
// Arrays are dense row-major float32 unless said otherwise; conventions are those of docs/conventions.md.
#pragma once
#include <cstdint>

#define SS_API extern "C" __attribute__((visibility("default")))

#define SS_ABI_VERSION 1

SS_API int ss_abi_version();
// Which build this is, and the best one this CPU can run: 0 baseline, 1 AVX2, 2 AVX-512.
SS_API int ss_build_level();
SS_API int ss_cpu_level();
