/* Panels with AVX2: products of unsigned four-bit codes and signed bytes add up in 16 bits. */
#pragma GCC target("avx2,fma,f16c")
#include <immintrin.h>

#include "matrix.h"
#include "simd.h"


enum { AHEAD = 4096 }; /* bytes that are asked for before their turn */

INLINE __m256 halves(const uint8_t *from) {
  return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from));
}

INLINE __m256i four(const int8_t *codes) {
  int32_t value;
  __builtin_memcpy(&value, codes, 4);
  return _mm256_set1_epi32(value);
}

/* Bit `step` of each byte as 16 or 0. */
INLINE __m256i fifth(const uint8_t *bits, const int step) {
  __m256i all = _mm256_loadu_si256((const __m256i *)bits);
  all = step < 4 ? _mm256_slli_epi16(all, 4 - step) : _mm256_srli_epi16(all, step - 4);
  return _mm256_and_si256(all, _mm256_set1_epi8(16));
}

/* Products of the columns 4 k to 4 k + 3 of a tile, added up in 16 bits. */
INLINE void step(const uint8_t *nibbles, const uint8_t *bits, const int8_t *const *codes,
                 const int count, const int k, __m256i sums[MOST][2]) {
  const __m256i low = _mm256_set1_epi8(15);
  __m256i both = _mm256_loadu_si256((const __m256i *)(nibbles + 32 * k));
  __m256i w0 = _mm256_and_si256(both, low);
  __m256i w1 = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
  if (bits) {
    w0 = _mm256_or_si256(w0, fifth(bits, k));
    w1 = _mm256_or_si256(w1, fifth(bits + 32, k));
  }
  EACH(m, count) {
    __m256i x = four(codes[m] + 4 * k);
    sums[m][0] = _mm256_add_epi16(sums[m][0], _mm256_maddubs_epi16(w0, x));
    sums[m][1] = _mm256_add_epi16(sums[m][1], _mm256_maddubs_epi16(w1, x));
    /* One row after the other: GCC would begin all products at once and lack registers. */
    __asm__ volatile("" : "+x"(sums[m][0]), "+x"(sums[m][1]));
  }
}

/* Steps first to last: 15 * 127 * 2 * 8 fits 16 bits, and of five bits 31 * 127 * 2 * 4. */
INLINE void multiply(const uint8_t *nibbles, const uint8_t *bits, const int8_t *const *codes,
                     const int count, const int first, const int last, __m256i sums[MOST][2]) {
  EACH(m, count) sums[m][0] = sums[m][1] = _mm256_setzero_si256();
  _Pragma("GCC unroll 8") for (int k = first; k < last; k++) step(nibbles, bits, codes, count, k, sums);
}

/* `parts` sections of a tile have a scale each. */
INLINE void panel(const int kind, const int count, const lm_part *part, long number,
                  const lm_rows *rows, long at, float *out) {
  const long groups = rows->columns / COLUMNS;
  const long tile1 = lm_first_tile(kind), tile2 = lm_second_tile(kind);
  const int cuts = kind == Q8G16 || kind == Q5 ? 2 : 1, steps = 8 / cuts;
  const int scales = kind == Q8G16 ? 2 : 1, minimum = kind == Q4M || kind == Q8M;
  const float zero = lm_zero(kind);
  const uint8_t *first = part->first + number * groups * tile1;
  const uint8_t *second = part->second + number * groups * tile2;
  const __m256i ones = _mm256_set1_epi16(1), sixteens = _mm256_set1_epi16(16);
  __m256 totals[MOST][2];
  EACH(m, count) totals[m][0] = totals[m][1] = _mm256_setzero_ps();
  for (long g = 0; g < groups; g++, first += tile1, second += tile2) {
    const uint8_t *nibbles = first + 32 * (scales + minimum);
    if (count == 1)
      for (int i = 0; i < 5; i++) {
        _mm_prefetch((const char *)first + AHEAD + 64 * i, _MM_HINT_T0);
        if (tile2 == NIBBLES) _mm_prefetch((const char *)second + AHEAD + 64 * i, _MM_HINT_T0);
      }
    const int8_t *codes[MOST];
    EACH(m, count) codes[m] = rows->codes + (at + m) * rows->columns + g * COLUMNS;
    __m256i whole[MOST][2] = {0};
    _Pragma("GCC unroll 2") for (int cut = 0; cut < cuts; cut++) {
      __m256i sums[MOST][2], lower[MOST][2];
      multiply(nibbles, kind == Q5 ? second : 0, codes, count, cut * steps, (cut + 1) * steps, sums);
      EACH(m, count)
        EACH(h, 2)
          sums[m][h] = _mm256_madd_epi16(sums[m][h], tile2 == NIBBLES || kind == Q8_ROUGH ? sixteens : ones);
      if (tile2 == NIBBLES) {
        multiply(second, 0, codes, count, cut * steps, (cut + 1) * steps, lower);
        EACH(m, count)
          EACH(h, 2)
            sums[m][h] = _mm256_add_epi32(sums[m][h], _mm256_madd_epi16(lower[m][h], ones));
      }
      if (kind == Q5) { /* two cuts against overflow alone */
        EACH(m, count)
          EACH(h, 2) {
            if (cut) sums[m][h] = _mm256_add_epi32(sums[m][h], whole[m][h]);
            whole[m][h] = sums[m][h];
          }
        if (!cut) continue;
      }
      const uint8_t *where = first + (scales == 2 ? 32 * cut : 0);
      __m256 s0 = halves(where), s1 = halves(where + 16);
      EACH(m, count) {
        long index = (at + m) * groups + g;
        __m256 scale = _mm256_set1_ps(rows->scale[index]);
        float sum = rows->sum[index];
        if (scales == 2) sum = cut ? sum - rows->first[index] : rows->first[index];
        __m256 v0 = _mm256_cvtepi32_ps(sums[m][0]), v1 = _mm256_cvtepi32_ps(sums[m][1]);
        if (minimum) {
          __m256 lowest = _mm256_set1_ps(sum);
          v0 = _mm256_mul_ps(v0, scale);
          v1 = _mm256_mul_ps(v1, scale);
          totals[m][0] = _mm256_fmadd_ps(halves(first + 32), lowest, totals[m][0]);
          totals[m][1] = _mm256_fmadd_ps(halves(first + 48), lowest, totals[m][1]);
        } else {
          __m256 shift = _mm256_set1_ps(-zero * sum);
          v0 = _mm256_fmadd_ps(v0, scale, shift);
          v1 = _mm256_fmadd_ps(v1, scale, shift);
        }
        totals[m][0] = _mm256_fmadd_ps(v0, s0, totals[m][0]);
        totals[m][1] = _mm256_fmadd_ps(v1, s1, totals[m][1]);
      }
    }
  }
  EACH(m, count) {
    _mm256_storeu_ps(out + 16 * m, totals[m][0]);
    _mm256_storeu_ps(out + 16 * m + 8, totals[m][1]);
  }
}

#define PANEL(KIND)                                                                              \
  static void panel_##KIND(const lm_part *part, long number, const lm_rows *rows, long at,      \
                           int count, float *out) {                                             \
    switch (count) {                                                                            \
      case 1: panel(KIND, 1, part, number, rows, at, out); break;                               \
      case 2: panel(KIND, 2, part, number, rows, at, out); break;                               \
      case 3: panel(KIND, 3, part, number, rows, at, out); break;                               \
      default: panel(KIND, 4, part, number, rows, at, out);                                     \
    }                                                                                           \
  }
PANEL(Q4M)
PANEL(Q5)
PANEL(Q8)
PANEL(Q8G16)
PANEL(Q8M)
PANEL(Q8_ROUGH)

lm_panel lm_panel_avx2(lm_kind kind) {
  static const lm_panel all[KINDS] = {panel_Q4M, panel_Q5, panel_Q8, panel_Q8G16, panel_Q8M,
                                     panel_Q8_ROUGH};
  return all[kind];
}
