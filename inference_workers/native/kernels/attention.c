/* Attention over keys and values in blocks. A row's result depends on its own keys alone: whatever
   else is computed beside it, in whatever chunks, the same additions are made in the same order. */
#pragma GCC target("avx2,fma,f16c")
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "pool.h"
#include "simd.h"
#include "store.h"

/* `count` tokens of one sequence from position `start` on, in rows `row` and after; its blocks begin
   at `table` of the table. */
typedef struct {
  int64_t row, count, start, table;
} lm_segment;

enum { TOGETHER = 4, CHUNK = 64, LARGEST_VALUE = 1024 };

typedef struct {
  const float *queries, *slopes;
  const lm_store *store;
  const lm_segment *segments;
  const int64_t *table;
  float *out;
  long heads, window;
  float scale;
  const struct item *items;
  _Atomic int *failed;
} lm_attention;

/* Tokens `from` to `to` of a segment, for one key head. */
struct item {
  int segment, head, from, to;
};

/* Dot products of `count` queries (1 or 4) with the keys of positions low to high. */
INLINE void score(const lm_attention *a, const lm_segment *s, int head, const float *const *query,
                  const int count, const int half, long low, long high, float *scores, long width) {
  const lm_store *store = a->store;
  const long size = store->key_size, step = store->heads * size;
  for (long at = low; at < high;) {
    long inside = at % store->block, end = at + store->block - inside;
    if (end > high) end = high;
    long base = (a->table[s->table + at / store->block] * store->block + inside) * step + head * size;
    for (; at < end; base += 2 * step) {
      const int pair = at + 1 < end;
      __m256 sums[TOGETHER][2];
      EACH(r, count) sums[r][0] = sums[r][1] = _mm256_setzero_ps();
      const long other = base + (pair ? step : 0);
      for (long i = 0; i < size; i += 8) {
        __m256 k0 = cached8(store->keys, base + i, half);
        __m256 k1 = cached8(store->keys, other + i, half);
        EACH(r, count) {
          __m256 q = _mm256_loadu_ps(query[r] + i);
          sums[r][0] = _mm256_fmadd_ps(q, k0, sums[r][0]);
          sums[r][1] = _mm256_fmadd_ps(q, k1, sums[r][1]);
        }
      }
      EACH(r, count) {
        scores[r * width + at - low] = sum8(sums[r][0]) * a->scale;
        if (pair) scores[r * width + at - low + 1] = sum8(sums[r][1]) * a->scale;
      }
      at += 1 + pair;
    }
  }
}

/* Turn one row's scores into weights that add up to 1; those of keys out of sight are 0. */
static void soften(float *scores, long count, long first, long last, float slope) {
  const float none = -INFINITY;
  for (long i = 0; i < first; i++) scores[i] = none;
  for (long i = last; i < (count + 7) / 8 * 8; i++) scores[i] = none;
  if (slope != 0)
    for (long i = first; i < last; i++) scores[i] += slope * (float)(i - last + 1);
  __m256 most = _mm256_set1_ps(none);
  for (long i = 0; i < count; i += 8) most = _mm256_max_ps(_mm256_loadu_ps(scores + i), most);
  /* The larger operand comes second where one is NaN: a NaN among the scores is not lost. */
  __m256 largest = _mm256_set1_ps(max8(most)), sum = _mm256_setzero_ps();
  for (long i = 0; i < count; i += 8) {
    __m256 e = exp8(_mm256_sub_ps(_mm256_loadu_ps(scores + i), largest));
    sum = _mm256_add_ps(sum, e);
    _mm256_storeu_ps(scores + i, e);
  }
  __m256 inverse = _mm256_set1_ps(1.0f / sum8(sum));
  for (long i = 0; i < count; i += 8)
    _mm256_storeu_ps(scores + i, _mm256_mul_ps(_mm256_loadu_ps(scores + i), inverse));
}

/* Weighted sums of the values of positions low to high, for `count` rows (1 or 4). */
INLINE void mix(const lm_attention *a, const lm_segment *s, int head, const int count,
                const int half, long low, long high, const float *weights, long width,
                float mixed[TOGETHER][LARGEST_VALUE]) {
  const lm_store *store = a->store;
  const long size = store->value_size, step = store->heads * size;
  EACH(r, count)
    for (long i = 0; i < size; i += 8) _mm256_storeu_ps(mixed[r] + i, _mm256_setzero_ps());
  for (long chunk = low; chunk < high; chunk += CHUNK) {
    long last = chunk + CHUNK < high ? chunk + CHUNK : high;
    long base[CHUNK];
    for (long at = chunk; at < last; at++)
      base[at - chunk] = (a->table[s->table + at / store->block] * store->block + at % store->block) * step + head * size;
    for (long i = 0; i < size; i += 16) {
      __m256 sums[TOGETHER][2];
      EACH(r, count) {
        sums[r][0] = _mm256_loadu_ps(mixed[r] + i);
        sums[r][1] = _mm256_loadu_ps(mixed[r] + i + 8);
      }
      for (long at = 0; at < last - chunk; at++) {
        __m256 v0 = cached8(store->values, base[at] + i, half);
        __m256 v1 = cached8(store->values, base[at] + i + 8, half);
        EACH(r, count) {
          __m256 w = _mm256_broadcast_ss(weights + r * width + chunk - low + at);
          sums[r][0] = _mm256_fmadd_ps(w, v0, sums[r][0]);
          sums[r][1] = _mm256_fmadd_ps(w, v1, sums[r][1]);
        }
      }
      EACH(r, count) {
        _mm256_storeu_ps(mixed[r] + i, sums[r][0]);
        _mm256_storeu_ps(mixed[r] + i + 8, sums[r][1]);
      }
    }
  }
}

static _Thread_local struct { float *memory; long size; } scratch;

static float *room(long floats) {
  if (scratch.size < floats) {
    free(scratch.memory);
    scratch.memory = aligned_alloc(64, (size_t)(floats + 15) / 16 * 64);
    scratch.size = scratch.memory ? floats : 0;
  }
  return scratch.memory;
}

static long lowest(const lm_attention *a, long position) {
  return a->window && position >= a->window ? position - a->window + 1 : 0;
}

/* `count` rows (1 or 4; `real` of them are wanted): heads of one token, and of the next. */
INLINE void rows(const lm_attention *a, const struct item *item, long each, long first,
                 const int count, int real, const int half) {
  const lm_segment *s = a->segments + item->segment;
  const long size = a->store->key_size, wide = a->store->value_size;
  const float *query[TOGETHER];
  long position[TOGETHER], head[TOGETHER], row[TOGETHER];
  for (int r = 0; r < count; r++) {
    long number = first + (r < real ? r : 0), token = item->from + number / each;
    position[r] = s->start + token;
    head[r] = item->head * each + number % each;
    row[r] = s->row + token;
    query[r] = a->queries + (row[r] * a->heads + head[r]) * size;
  }
  long low = lowest(a, position[0]), high = position[real - 1] + 1;
  low -= low % 8; /* in whole vectors, so that a row adds up in one order whatever is beside it */
  long width = (high - low + 15) / 8 * 8;
  float *scores = room(count * width), mixed[TOGETHER][LARGEST_VALUE];
  if (!scores) {
    atomic_store(a->failed, 1);
    return;
  }
  score(a, s, item->head, query, count, half, low, high, scores, width);
  for (int r = 0; r < real; r++)
    soften(scores + r * width, high - low, lowest(a, position[r]) - low, position[r] + 1 - low,
           a->slopes ? a->slopes[head[r]] : 0.0f);
  for (int r = real; r < count; r++)
    for (long i = 0; i < width; i++) scores[r * width + i] = 0;
  mix(a, s, item->head, count, half, low, high, scores, width, mixed);
  for (int r = 0; r < real; r++) {
    float *to = a->out + (row[r] * a->heads + head[r]) * wide;
    for (long i = 0; i < wide; i += 8) _mm256_storeu_ps(to + i, _mm256_loadu_ps(mixed[r] + i));
  }
}

static void attend_piece(void *argument, long piece) {
  const lm_attention *a = argument;
  const struct item *item = a->items + piece;
  const long each = a->heads / a->store->heads, all = (item->to - item->from) * each;
  for (long first = 0; first < all; first += TOGETHER) {
    int real = all - first < TOGETHER ? (int)(all - first) : TOGETHER;
    if (a->store->half && real == 1) rows(a, item, each, first, 1, 1, 1);
    else if (a->store->half) rows(a, item, each, first, TOGETHER, real, 1);
    else if (real == 1) rows(a, item, each, first, 1, 1, 0);
    else rows(a, item, each, first, TOGETHER, real, 0);
  }
}

/* out (rows x heads x value size) of queries (rows x heads x key size). `window` 0 is everything;
   `slopes` one a head or NULL (ALiBi). Sizes of heads are multiples of 16. 1: no memory. */
int lm_attend(const float *queries, long heads, const lm_store *store, const lm_segment *segments,
              long count, const int64_t *table, long window, const float *slopes, float scale,
              float *out) {
  enum { TOKENS = 16 };
  long total = 0, made = 0;
  for (long i = 0; i < count; i++) total += (segments[i].count + TOKENS - 1) / TOKENS * store->heads;
  struct item *items = malloc((size_t)total * sizeof *items);
  if (!items) return 1;
  for (long i = 0; i < count; i++)
    for (int head = 0; head < store->heads; head++)
      for (long from = 0; from < segments[i].count; from += TOKENS) {
        long to = from + TOKENS < segments[i].count ? from + TOKENS : segments[i].count;
        items[made++] = (struct item){(int)i, head, (int)from, (int)to};
      }
  _Atomic int failed = 0;
  lm_attention a = {queries, slopes, store, segments, table, out, heads, window, scale, items, &failed};
  lm_parallel(attend_piece, &a, made);
  free(items);
  return failed;
}
