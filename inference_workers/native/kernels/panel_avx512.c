/* Panels with AVX-512 and VNNI: a product of 64 pairs of bytes is one instruction. */
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")
#include <immintrin.h>

#include "matrix.h"
#include "simd.h"


INLINE __m512 halves(const uint8_t *from) {
  return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
}

/* Rows 0 to 7 from the lower four bits, rows 8 to 15 from the upper ones. */
INLINE __m512i spread(const uint8_t *nibbles) {
  __m256i both = _mm256_loadu_si256((const __m256i *)nibbles);
  __m512i wide = _mm512_inserti64x4(_mm512_castsi256_si512(both), _mm256_srli_epi16(both, 4), 1);
  return _mm512_and_si512(wide, _mm512_set1_epi8(15));
}

/* Bit `step` of each of 64 bytes as 16 or 0. */
INLINE __m512i fifths(const uint8_t *bits, const int step) {
  __m512i all = _mm512_loadu_si512(bits);
  all = step < 4 ? _mm512_slli_epi16(all, 4 - step) : _mm512_srli_epi16(all, step - 4);
  return _mm512_and_si512(all, _mm512_set1_epi8(16));
}

INLINE void panel(const int kind, const int count, const lm_part *part, long number,
                  const lm_rows *rows, long at, float *out) {
  const long groups = rows->columns / COLUMNS;
  const long tile1 = lm_first_tile(kind), tile2 = lm_second_tile(kind);
  const int scales = kind == Q8G16 ? 2 : 1, minimum = kind == Q4M || kind == Q8M;
  const int step = 8 / scales;
  const float zero = lm_zero(kind);
  const uint8_t *first = part->first + number * groups * tile1;
  const uint8_t *second = part->second + number * groups * tile2;
  __m512 totals[MOST];
  EACH(m, count) totals[m] = _mm512_setzero_ps();
  for (long g = 0; g < groups; g++, first += tile1, second += tile2) {
    const uint8_t *nibbles = first + 32 * (scales + minimum);
    for (int cut = 0; cut < scales; cut++) {
      __m512i sums[MOST];
      EACH(m, count) sums[m] = _mm512_setzero_si512();
      _Pragma("GCC unroll 8") for (int k = cut * step; k < (cut + 1) * step; k++) {
        __m512i w = spread(nibbles + 32 * k);
        if (kind == Q8_ROUGH) w = _mm512_slli_epi16(w, 4);
        if (tile2 == NIBBLES)
          w = _mm512_or_si512(_mm512_slli_epi16(w, 4), spread(second + 32 * k));
        if (kind == Q5) w = _mm512_or_si512(w, fifths(second, k));
        EACH(m, count) {
          int32_t x;
          __builtin_memcpy(&x, rows->codes + (at + m) * rows->columns + g * COLUMNS + 4 * k, 4);
          sums[m] = _mm512_dpbusd_epi32(sums[m], w, _mm512_set1_epi32(x));
        }
      }
      __m512 scale = halves(first + 32 * cut);
      EACH(m, count) {
        long index = (at + m) * groups + g;
        __m512 own = _mm512_set1_ps(rows->scale[index]), value = _mm512_cvtepi32_ps(sums[m]);
        float sum = rows->sum[index];
        if (scales == 2) sum = cut ? sum - rows->first[index] : rows->first[index];
        if (minimum) {
          value = _mm512_mul_ps(value, own);
          totals[m] = _mm512_fmadd_ps(halves(first + 32), _mm512_set1_ps(sum), totals[m]);
        } else {
          value = _mm512_fmadd_ps(value, own, _mm512_set1_ps(-zero * sum));
        }
        totals[m] = _mm512_fmadd_ps(value, scale, totals[m]);
      }
    }
  }
  EACH(m, count) _mm512_storeu_ps(out + 16 * m, totals[m]);
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

lm_panel lm_panel_avx512(lm_kind kind) {
  static const lm_panel all[KINDS] = {panel_Q4M, panel_Q5, panel_Q8, panel_Q8G16, panel_Q8M,
                                     panel_Q8_ROUGH};
  return all[kind];
}
