// LANES floats at a time: GCC vector extensions, and the few operations they lack. LANES is 16 for AVX-512, 8 for AVX2
// and 4 for baseline builds (SSE2, NEON). Everything here has internal linkage, so builds never mix.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define SS_LANES 16
#elif defined(__AVX2__)
#define SS_LANES 8
#else
#define SS_LANES 4
#endif
#define SS_INLINE static inline __attribute__((always_inline))

constexpr int LANES = SS_LANES;
typedef float Floats __attribute__((vector_size(4 * SS_LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * SS_LANES)));
typedef float Quad __attribute__((vector_size(16)));
typedef Floats FloatsUnaligned __attribute__((aligned(4)));

SS_INLINE Floats broadcast(float x) { return Floats{} + x; }
SS_INLINE Floats load(const float* p) { return *reinterpret_cast<const Floats*>(p); }
SS_INLINE void store(float* p, Floats x) { *reinterpret_cast<Floats*>(p) = x; }

// Mask: the outcome of a comparison. An unordered comparison (NaN) is false.
#if defined(__AVX512F__)
typedef __mmask16 Mask;
constexpr Mask ALL_LANES = 0xffff;  // the unmasked intrinsics draw a false warning from GCC 12
SS_INLINE Mask greater(Floats a, Floats b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ); }
SS_INLINE Mask at_least(Floats a, Floats b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GE_OQ); }
SS_INLINE Floats select(Mask m, Floats a, Floats b) { return (Floats)_mm512_mask_blend_ps(m, (__m512)b, (__m512)a); }
SS_INLINE Floats keep(Mask m, Floats a) { return (Floats)_mm512_maskz_mov_ps(m, (__m512)a); }
SS_INLINE unsigned bits(Mask m) { return m; }
SS_INLINE Floats min(Floats a, Floats b) { return (Floats)_mm512_maskz_min_ps(ALL_LANES, (__m512)a, (__m512)b); }
SS_INLINE Floats max(Floats a, Floats b) { return (Floats)_mm512_maskz_max_ps(ALL_LANES, (__m512)a, (__m512)b); }
#else
typedef Ints Mask;
SS_INLINE Mask greater(Floats a, Floats b) { return a > b; }
SS_INLINE Mask at_least(Floats a, Floats b) { return a >= b; }
SS_INLINE Floats select(Mask m, Floats a, Floats b) { return m ? a : b; }
SS_INLINE Floats keep(Mask m, Floats a) { return (Floats)(m & (Ints)a); }
SS_INLINE Floats min(Floats a, Floats b) { return a < b ? a : b; }  // the second when unordered, as minps does
SS_INLINE Floats max(Floats a, Floats b) { return a > b ? a : b; }
SS_INLINE unsigned bits(Mask m) {
#if defined(__AVX2__)
  return _mm256_movemask_ps((__m256)m);
#elif defined(__x86_64__)
  return _mm_movemask_ps((__m128)m);
#else
  unsigned r = 0;
  for (int k = 0; k < LANES; k++) r |= (m[k] & 1u) << k;
  return r;
#endif
}
#endif
// Bit `b` of each of `values`.
SS_INLINE unsigned bit_of_each(Ints values, int b) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)values, _mm512_set1_epi32(1 << b));
#else
  return bits(values << (31 - b) >> 31);
#endif
}
SS_INLINE bool any(Mask m) { return bits(m) != 0; }
SS_INLINE Floats clamp(Floats x, Floats low, Floats high) { return min(max(x, low), high); }

SS_INLINE Floats sqrt(Floats x) {
#if defined(__AVX512F__)
  return (Floats)_mm512_maskz_sqrt_ps(ALL_LANES, (__m512)x);
#elif defined(__AVX2__)
  return (Floats)_mm256_sqrt_ps((__m256)x);
#else
  for (int k = 0; k < LANES; k++) x[k] = std::sqrt(x[k]);
  return x;
#endif
}

// 2^x for |x| <= 126, to 2e-7 relative; anything outside that range yields an arbitrary value.
// Adding 1.5 * 2^23 rounds x to an integer and leaves it in the low mantissa bits; the rest is a minimax polynomial.
SS_INLINE Floats exp2(Floats x) {
  const Floats shifted = x + 12582912.0f;
  const Floats r = x - (shifted - 12582912.0f);
  Floats y = r * 1.3276471782e-3f + 9.6755413328e-3f;
  y = y * r + 5.5507132741e-2f;
  y = y * r + 2.4022119724e-1f;
  y = y * r + 6.9314696706e-1f;
  y = y * r + 1.0000000717e+0f;
  return (Floats)((Ints)y + ((Ints)shifted << 23));
}

// log2(x) for normal x > 0, to 1e-7 absolute near 1: the exponent plus 2 atanh((m - 1) / (m + 1)) / ln 2.
SS_INLINE Floats log2(Floats x) {
  const Ints offset = (Ints)x - 0x3f3504f3;  // sqrt(1/2): the mantissa m lands in [sqrt(1/2), sqrt(2))
  const Ints exponent = offset >> 23;
  const Floats m = (Floats)((Ints)x - (exponent << 23));
  const Floats t = (m - 1.0f) / (m + 1.0f), t2 = t * t;
  const Floats series = ((t2 * (1.0f / 7) + 1.0f / 5) * t2 + 1.0f / 3) * t2 + 1.0f;
  return __builtin_convertvector(exponent, Floats) + t * series * 2.8853900817779268f;
}

// Appends to `list` those of `values` whose mask bit is set, and returns how many there are. May write LANES values.
SS_INLINE int append(int32_t* list, Ints values, unsigned mask) {
#if defined(__AVX512F__)
  _mm512_storeu_si512(list, _mm512_maskz_compress_epi32((Mask)mask, (__m512i)values));
  return __builtin_popcount(mask);
#else
  int n = 0;
  for (int k = 0; k < LANES; k++) {
    list[n] = values[k];
    n += mask >> k & 1;
  }
  return n;
#endif
}

// Transposes the 4 x 4 matrix of these rows.
SS_INLINE void transpose4(Quad& a, Quad& b, Quad& c, Quad& d) {
#if defined(__clang__)
#define SS_SHUFFLE(x, y, i, j, k, l) __builtin_shufflevector(x, y, i, j, k, l)
#else
  typedef int32_t Index __attribute__((vector_size(16)));
#define SS_SHUFFLE(x, y, i, j, k, l) __builtin_shuffle(x, y, Index{i, j, k, l})
#endif
  const Quad ab0 = SS_SHUFFLE(a, b, 0, 4, 1, 5), ab1 = SS_SHUFFLE(a, b, 2, 6, 3, 7);
  const Quad cd0 = SS_SHUFFLE(c, d, 0, 4, 1, 5), cd1 = SS_SHUFFLE(c, d, 2, 6, 3, 7);
  a = SS_SHUFFLE(ab0, cd0, 0, 1, 4, 5);
  b = SS_SHUFFLE(ab0, cd0, 2, 3, 6, 7);
  c = SS_SHUFFLE(ab1, cd1, 0, 1, 4, 5);
  d = SS_SHUFFLE(ab1, cd1, 2, 3, 6, 7);
#undef SS_SHUFFLE
}

// Copies a few floats, without the set-up of memcpy for many.
SS_INLINE void copy_short(float* to, const float* from, int count) {
  int k = 0;
  for (; k + 4 <= count; k += 4) std::memcpy(to + k, from + k, sizeof(Quad));
  for (; k < count; k++) to[k] = from[k];
}
