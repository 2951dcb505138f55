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

// Stores past the caches, for whole cache lines that are not read soon: twice as fast when they lie scattered in memory.
// `finish_streams` orders them before what follows.
SS_INLINE void stream(float* p, Floats x) {
#if defined(__AVX512F__)
  _mm512_stream_ps(p, (__m512)x);
#elif defined(__AVX2__)
  _mm256_stream_ps(p, (__m256)x);
#elif defined(__x86_64__)
  _mm_stream_ps(p, (__m128)x);
#else
  store(p, x);
#endif
}
SS_INLINE void finish_streams() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

// Pairs (a, b) of each lane, in two vectors. Lane l's pair begins at float `pair_at(l)` of the two.
SS_INLINE void store_pairs(float* p, Floats a, Floats b) {
#if defined(__AVX512F__)
  store(p, (Floats)_mm512_maskz_unpacklo_ps(0xffff, (__m512)a, (__m512)b));
  store(p + LANES, (Floats)_mm512_maskz_unpackhi_ps(0xffff, (__m512)a, (__m512)b));
#elif defined(__AVX2__)
  store(p, (Floats)_mm256_unpacklo_ps((__m256)a, (__m256)b));
  store(p + LANES, (Floats)_mm256_unpackhi_ps((__m256)a, (__m256)b));
#else
  for (int l = 0; l < LANES; l++) p[2 * l] = a[l], p[2 * l + 1] = b[l];
#endif
}
constexpr int pair_at(int lane) { return lane % 4 / 2 * LANES + lane / 4 * 4 + lane % 2 * 2; }
SS_INLINE Floats broadcast_pair(const float* p) {
  typedef int64_t Longs __attribute__((vector_size(4 * SS_LANES)));
  int64_t pair;
  std::memcpy(&pair, p, sizeof pair);
  return (Floats)(Longs{} + pair);
}

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

#if defined(__clang__)
#define SS_SHUFFLE(x, y, i, j, k, l) __builtin_shufflevector(x, y, i, j, k, l)
#else
typedef int32_t QuadIndex __attribute__((vector_size(16)));
#define SS_SHUFFLE(x, y, i, j, k, l) __builtin_shuffle(x, y, QuadIndex{i, j, k, l})
#endif
// Transposes the 4 x 4 matrix of these rows.
SS_INLINE void transpose4(Quad& a, Quad& b, Quad& c, Quad& d) {
  const Quad ab0 = SS_SHUFFLE(a, b, 0, 4, 1, 5), ab1 = SS_SHUFFLE(a, b, 2, 6, 3, 7);
  const Quad cd0 = SS_SHUFFLE(c, d, 0, 4, 1, 5), cd1 = SS_SHUFFLE(c, d, 2, 6, 3, 7);
  a = SS_SHUFFLE(ab0, cd0, 0, 1, 4, 5);
  b = SS_SHUFFLE(ab0, cd0, 2, 3, 6, 7);
  c = SS_SHUFFLE(ab1, cd1, 0, 1, 4, 5);
  d = SS_SHUFFLE(ab1, cd1, 2, 3, 6, 7);
}
// a0 b0 a1 b1 and a2 b2 a3 b3.
SS_INLINE void interleave(Quad a, Quad b, Quad& low, Quad& high) {
  low = SS_SHUFFLE(a, b, 0, 4, 1, 5);
  high = SS_SHUFFLE(a, b, 2, 6, 3, 7);
}
// LANES / 4 quads as one vector. (Storing them and loading the whole would wait for the stores.)
SS_INLINE Floats join(const Quad* quads) {
#if defined(__AVX512F__)
  const __m512 low = _mm512_insertf32x4(_mm512_castps128_ps512((__m128)quads[0]), (__m128)quads[1], 1);
  return (Floats)_mm512_insertf32x4(_mm512_insertf32x4(low, (__m128)quads[2], 2), (__m128)quads[3], 3);
#elif defined(__AVX2__)
  return (Floats)_mm256_insertf128_ps(_mm256_castps128_ps256((__m128)quads[0]), (__m128)quads[1], 1);
#else
  return quads[0];
#endif
}
// The first halves of two quads.
SS_INLINE Quad join_halves(Quad a, Quad b) { return SS_SHUFFLE(a, b, 0, 1, 4, 5); }
// Another fourth element. (Assigning it would go through memory, and wait.)
SS_INLINE Quad with_fourth(Quad a, float fourth) { return SS_SHUFFLE(a, (Quad{} + fourth), 0, 1, 2, 7); }
#undef SS_SHUFFLE

// The first `count` floats (all four when there are more); the others are 0.
SS_INLINE Quad load_quad(const float* from, int64_t count) {
  Quad quad{};
  if (count >= 4) {
    std::memcpy(&quad, from, sizeof quad);
  } else {
    for (int k = 0; k < 3; k++) {
      if (k < count) quad[k] = from[k];
    }
  }
  return quad;
}
SS_INLINE void store_quad(float* to, Quad quad, int64_t count) {
  if (count >= 4) {
    std::memcpy(to, &quad, sizeof quad);
  } else {
    for (int k = 0; k < 3; k++) {
      if (k < count) to[k] = quad[k];
    }
  }
}
