/* The small things between products: norms, gates, heads, embedding rows. */
#pragma GCC target("avx2,fma,f16c")
#include <math.h>
#include <string.h>

#include "matrix.h"
#include "pool.h"
#include "simd.h"
#include "store.h"

typedef struct {
  const float *x, *scale, *onto;
  float *out;
  long rows, size, each;
  float eps;
} lm_norm;

/* x / rms(x) * scale; `size` is a multiple of 8. */
INLINE float inverse_rms(const float *x, long size, float eps) {
  __m256 a = _mm256_setzero_ps(), b = a;
  long i = 0;
  for (; i + 16 <= size; i += 16) {
    __m256 u = _mm256_loadu_ps(x + i), v = _mm256_loadu_ps(x + i + 8);
    a = _mm256_fmadd_ps(u, u, a);
    b = _mm256_fmadd_ps(v, v, b);
  }
  for (; i < size; i += 8) {
    __m256 u = _mm256_loadu_ps(x + i);
    a = _mm256_fmadd_ps(u, u, a);
  }
  return 1.0f / sqrtf(sum8(_mm256_add_ps(a, b)) / (float)size + eps);
}

static void norm_piece(void *argument, long piece) {
  lm_norm *p = argument;
  long end = (piece + 1) * p->each < p->rows ? (piece + 1) * p->each : p->rows;
  for (long row = piece * p->each; row < end; row++) {
    const float *x = p->x + row * p->size;
    __m256 factor = _mm256_set1_ps(inverse_rms(x, p->size, p->eps));
    for (long i = 0; i < p->size; i += 8) {
      __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x + i), factor);
      v = _mm256_mul_ps(v, _mm256_loadu_ps(p->scale + i));
      if (p->onto) v = _mm256_add_ps(v, _mm256_loadu_ps(p->onto + row * p->size + i));
      _mm256_storeu_ps(p->out + row * p->size + i, v);
    }
  }
}

/* out = [onto +] x / rms(x) * scale, over rows of `size`. */
void lm_rms_norm(const float *x, long rows, long size, const float *scale, float eps,
                 const float *onto, float *out) {
  lm_norm p = {x, scale, onto, out, rows, size, 16, eps};
  lm_parallel(norm_piece, &p, (rows + p.each - 1) / p.each);
}

typedef struct {
  const float *x;
  float *out;
  long rows, size, each;
  int tanh;
} lm_gate;

static void gate_piece(void *argument, long piece) {
  lm_gate *p = argument;
  long end = (piece + 1) * p->each < p->rows ? (piece + 1) * p->each : p->rows;
  for (long row = piece * p->each; row < end; row++) {
    const float *gate = p->x + 2 * row * p->size, *up = gate + p->size;
    for (long i = 0; i < p->size; i += 8) {
      __m256 v = gated8(_mm256_loadu_ps(gate + i), _mm256_loadu_ps(up + i), p->tanh);
      _mm256_storeu_ps(p->out + row * p->size + i, v);
    }
  }
}

/* out (rows x size) = act(x[:, :size]) * x[:, size:]; the SiLU, or GELU by tanh. */
void lm_gated(const float *x, long rows, long size, int tanh, float *out) {
  lm_gate p = {x, out, rows, size, 8, tanh};
  lm_parallel(gate_piece, &p, (rows + p.each - 1) / p.each);
}

typedef struct {
  const float *x, *query_scale, *key_scale, *cosines, *sines;
  const int64_t *positions, *slots;
  const lm_store *store;
  float *queries;
  long rows, heads, each;
  float eps;
} lm_heads;

/* Normalise (if there are scales) and rotate one head by the halves' rule. */
INLINE void turn(const float *x, long size, const float *scale, float eps, const float *cosines,
                 const float *sines, float *out) {
  __m256 factor = _mm256_set1_ps(scale ? inverse_rms(x, size, eps) : 1.0f);
  long half = size / 2;
  for (long i = 0; i < half; i += 8) {
    __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + half + i);
    if (scale) {
      a = _mm256_mul_ps(_mm256_mul_ps(a, factor), _mm256_loadu_ps(scale + i));
      b = _mm256_mul_ps(_mm256_mul_ps(b, factor), _mm256_loadu_ps(scale + half + i));
    }
    if (cosines) {
      __m256 c = _mm256_loadu_ps(cosines + i), s = _mm256_loadu_ps(sines + i);
      __m256 turned = _mm256_fnmadd_ps(b, s, _mm256_mul_ps(a, c));
      b = _mm256_fmadd_ps(a, s, _mm256_mul_ps(b, c));
      a = turned;
    }
    _mm256_storeu_ps(out + i, a);
    _mm256_storeu_ps(out + half + i, b);
  }
}

INLINE void keep(void *to, long at, const float *from, long size, int half) {
  if (!half) {
    memcpy((float *)to + at, from, (size_t)size * sizeof(float));
    return;
  }
  for (long i = 0; i < size; i += 8)
    _mm_storeu_si128((__m128i *)((uint16_t *)to + at + i), _mm256_cvtps_ph(_mm256_loadu_ps(from + i), 0));
}

enum { LARGEST_HEAD = 1024 };

static void heads_piece(void *argument, long piece) {
  lm_heads *p = argument;
  const lm_store *s = p->store;
  const long size = s->key_size, kept = s->heads;
  const long width = (p->heads + kept) * size + kept * s->value_size;
  float key[LARGEST_HEAD];
  long end = (piece + 1) * p->each < p->rows ? (piece + 1) * p->each : p->rows;
  for (long row = piece * p->each; row < end; row++) {
    const float *x = p->x + row * width;
    const float *c = p->cosines ? p->cosines + p->positions[row] * size / 2 : 0;
    const float *n = p->cosines ? p->sines + p->positions[row] * size / 2 : 0;
    for (long h = 0; h < p->heads; h++, x += size)
      turn(x, size, p->query_scale, p->eps, c, n, p->queries + (row * p->heads + h) * size);
    long slot = p->slots[row] * kept;
    for (long h = 0; h < kept; h++, x += size) {
      turn(x, size, p->key_scale, p->eps, c, n, key);
      keep(s->keys, (slot + h) * size, key, size, (int)s->half);
    }
    for (long h = 0; h < kept; h++, x += s->value_size)
      keep(s->values, (slot + h) * s->value_size, x, s->value_size, (int)s->half);
  }
}

/* Rows of queries, keys and values side by side: queries and keys are normalised (where there are
   scales) and rotated (where there are tables, half a head a position), keys and values kept at their
   slots. Sizes of heads are multiples of 16. */
void lm_place_heads(const float *x, long rows, long heads, const float *query_scale,
                    const float *key_scale, float eps, const float *cosines, const float *sines,
                    const int64_t *positions, const int64_t *slots, const lm_store *store,
                    float *queries) {
  lm_heads p = {x, query_scale, key_scale, cosines, sines, positions, slots, store,
                queries, rows, heads, 8, eps};
  lm_parallel(heads_piece, &p, (rows + p.each - 1) / p.each);
}

/* Rows of a packed matrix as floats, times `factor`: an embedding's look-up. */
void lm_look_up(const lm_part *part, const int64_t *tokens, long count, float factor, float *out) {
  const long groups = part->columns / COLUMNS;
  const lm_kind kind = part->kind;
  const long tile1 = lm_first_tile(kind), tile2 = lm_second_tile(kind);
  const int scales = kind == Q8G16 ? 2 : 1, minimum = kind == Q4M || kind == Q8M;
  for (long i = 0; i < count; i++) {
    const long number = tokens[i] / ROWS, row = tokens[i] % ROWS;
    const int up = row >= 8 ? 4 : 0;
    const uint8_t *first = part->first + number * groups * tile1;
    const uint8_t *second = part->second + number * groups * tile2;
    for (long g = 0; g < groups; g++, first += tile1, second += tile2) {
      const uint16_t *halves = (const uint16_t *)first;
      const uint8_t *nibbles = first + 32 * (scales + minimum);
      float lowest = minimum ? _cvtsh_ss(halves[16 + row]) : 0.0f;
      for (int k = 0; k < COLUMNS; k++) {
        const int step = k / 4, column = k % 4, byte = 32 * step + 4 * (int)(row % 8) + column;
        int code = nibbles[byte] >> up & 15;
        if (tile2 == NIBBLES) code = code << 4 | (second[byte] >> up & 15);
        if (kind == Q5) code |= (second[4 * row + column] >> step & 1) << 4;
        float scale = _cvtsh_ss(halves[(scales == 2 ? k / 16 * 16 : 0) + row]);
        out[i * part->columns + g * COLUMNS + k] =
            factor * (scale * ((float)code - lm_zero(kind)) + lowest);
      }
    }
  }
}
