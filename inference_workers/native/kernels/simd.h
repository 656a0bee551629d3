/* What the files below share: short vector functions for AVX2. */
#pragma once
#include <immintrin.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))
/* Unrolled, so that its values live in registers. */
#define EACH(i, end) _Pragma("GCC unroll 4") for (int i = 0; i < (end); i++)

INLINE float sum8(__m256 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

INLINE float max8(__m256 v) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

/* e^x: 2^n times a Taylor polynomial on [-ln 2 / 2, ln 2 / 2]; within 3e-7 relatively. Below -87.3 it
   is 0, above 88 it stays; NaN goes through. */
INLINE __m256 exp8(__m256 x) {
  const __m256 least = _mm256_set1_ps(-87.3f);
  __m256 far = _mm256_cmp_ps(x, least, _CMP_LT_OQ);
  x = _mm256_min_ps(_mm256_set1_ps(88.0f), x);
  __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)), 8);
  __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
  __m256 p = _mm256_set1_ps(1.0f / 720);
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
  __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_andnot_ps(far, _mm256_mul_ps(p, _mm256_castsi256_ps(power)));
}

/* act(gate) * up: the SiLU, or GELU by tanh. */
INLINE __m256 gated8(__m256 gate, __m256 up, const int tanh) {
  __m256 z = gate;
  if (tanh) { /* 0.5 (1 + tanh u) is the logistic function of 2 u */
    __m256 cube = _mm256_mul_ps(_mm256_mul_ps(gate, gate), gate);
    z = _mm256_fmadd_ps(cube, _mm256_set1_ps(0.044715f), gate);
    z = _mm256_mul_ps(z, _mm256_set1_ps(2 * 0.7978845608f));
  }
  __m256 below = _mm256_add_ps(_mm256_set1_ps(1.0f), exp8(_mm256_sub_ps(_mm256_setzero_ps(), z)));
  return _mm256_mul_ps(_mm256_div_ps(gate, below), up);
}

INLINE __m256 halves8(const uint16_t *from) {
  return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from));
}

/* Keys and values are float32 or float16. */
INLINE __m256 cached8(const void *from, long at, int half) {
  return half ? halves8((const uint16_t *)from + at) : _mm256_loadu_ps((const float *)from + at);
}
