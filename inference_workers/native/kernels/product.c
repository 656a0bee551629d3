/* Rows to signed bytes, and products with packed matrices over all cores. */
#pragma GCC target("avx2,fma,f16c")
#include <immintrin.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "matrix.h"
#include "pool.h"
#include "simd.h"

static lm_panel chosen[KINDS];

/* Which processor's panels to use: 0 for none, 2 for AVX2, 512 for AVX-512 with VNNI. */
int lm_choose(int level) {
  if (level == 0) level = __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") ? 512 : 2;
  if (level == 512 && !(__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw"))) return 0;
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c")) return 0;
  for (int kind = 0; kind < KINDS; kind++)
    chosen[kind] = level == 512 ? lm_panel_avx512(kind) : lm_panel_avx2(kind);
  return level;
}

static void quantise_row(const float *x, const lm_rows *rows, long row) {
  const __m256 positive = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const long groups = rows->columns / COLUMNS;
  for (long g = 0; g < groups; g++) {
    __m256 v[4], most = _mm256_setzero_ps(), ill = most;
    for (int i = 0; i < 4; i++) {
      v[i] = _mm256_loadu_ps(x + g * COLUMNS + 8 * i);
      most = _mm256_max_ps(most, _mm256_and_ps(v[i], positive));
      ill = _mm256_fmadd_ps(v[i], _mm256_setzero_ps(), ill);
    }
    float largest = max8(most);
    /* Infinite and no number: then so is all that comes of it, instead of something plausible. */
    float scale = sum8(ill) == 0 ? largest / 127.0f : NAN;
    __m256 inverse = _mm256_set1_ps(largest > 0 ? 127.0f / largest : 0.0f);
    __m256i c[4];
    for (int i = 0; i < 4; i++) c[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse));
    __m256i front = _mm256_add_epi32(c[0], c[1]), back = _mm256_add_epi32(c[2], c[3]);
    __m256i low = _mm256_packs_epi32(c[0], c[1]), high = _mm256_packs_epi32(c[2], c[3]);
    __m256i bytes = _mm256_packs_epi16(low, high);
    __m256i squares = _mm256_add_epi32(_mm256_madd_epi16(low, low), _mm256_madd_epi16(high, high));
    bytes = _mm256_permutevar8x32_epi32(bytes, order);
    _mm256_storeu_si256((__m256i *)(rows->codes + row * rows->columns + g * COLUMNS), bytes);
    __m256i pairs = _mm256_hadd_epi32(front, back);
    pairs = _mm256_hadd_epi32(pairs, pairs);
    __m128i sums = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
    int first = _mm_cvtsi128_si32(sums), second = _mm_extract_epi32(sums, 1);
    rows->scale[row * groups + g] = scale;
    rows->first[row * groups + g] = scale * (float)first;
    rows->sum[row * groups + g] = scale * (float)(first + second);
    float square = sum8(_mm256_cvtepi32_ps(squares));
    rows->square[row * groups + g] = 8 * 8 * 21.25f * scale * scale * square;
  }
}

typedef struct {
  const float *x;
  lm_rows rows;
  const lm_part *parts;
  int count;
  const float *bias;
  float *out;
  long width; /* of a row of `out` */
  long each;  /* panels, or rows to quantise, a piece */
  long panels;
  struct best *best; /* of each piece and row */
  int tanh; /* the gates' function: GELU by tanh, or else the SiLU */
  const uint32_t *const *masks; /* of each row, which tokens it may have, or NULL: all */
  long words;                   /* of a mask; it has no tokens beyond them */
  _Atomic float *floors; /* what each row has at least, whichever piece found it; NULL: unscreened */
} lm_product;

struct best {
  float value;
  int32_t token;
};

static void quantise_piece(void *argument, long piece) {
  lm_product *p = argument;
  long end = (piece + 1) * p->each;
  if (end > p->rows.rows) end = p->rows.rows;
  for (long row = piece * p->each; row < end; row++)
    quantise_row(p->x + row * p->rows.columns, &p->rows, row);
}

static void one_panel(lm_product *p, const lm_part *part, long number) {
  float results[MOST * ROWS];
  long at = part->at + number * ROWS, room = part->outputs - number * ROWS;
  int width = room < ROWS ? (int)room : ROWS;
  for (long m = 0; m < p->rows.rows; m += MOST) {
    int count = p->rows.rows - m < MOST ? (int)(p->rows.rows - m) : MOST;
    chosen[part->kind](part, number, &p->rows, m, count, results);
    for (int i = 0; i < count; i++) {
      float *to = p->out + (m + i) * p->width + at;
      if (p->bias)
        for (int n = 0; n < width; n++) results[ROWS * i + n] += p->bias[at + n];
      memcpy(to, results + ROWS * i, (size_t)width * sizeof(float));
    }
  }
}

static void product_piece(void *argument, long piece) {
  lm_product *p = argument;
  long end = (piece + 1) * p->each;
  if (end > p->panels) end = p->panels;
  long number = piece * p->each;
  const lm_part *part = p->parts;
  for (; number < end; number++) {
    long before = 0;
    for (part = p->parts; number - before >= (part->outputs + ROWS - 1) / ROWS; part++)
      before += (part->outputs + ROWS - 1) / ROWS;
    one_panel(p, part, number - before);
  }
}

/* Panels of gates and of what they gate, which have as many outputs. */
static void gated_piece(void *argument, long piece) {
  lm_product *p = argument;
  const lm_part *gate = p->parts, *up = p->parts + 1;
  long end = (piece + 1) * p->each < p->panels ? (piece + 1) * p->each : p->panels;
  for (long number = piece * p->each; number < end; number++) {
    long at = number * ROWS, room = gate->outputs - at;
    size_t width = (size_t)(room < ROWS ? room : ROWS) * sizeof(float);
    for (long m = 0; m < p->rows.rows; m += MOST) {
      int count = p->rows.rows - m < MOST ? (int)(p->rows.rows - m) : MOST;
      float gates[MOST * ROWS], ups[MOST * ROWS];
      chosen[gate->kind](gate, number, &p->rows, m, count, gates);
      chosen[up->kind](up, number, &p->rows, m, count, ups);
      for (int i = 0; i < count * ROWS; i += 8)
        _mm256_storeu_ps(ups + i, gated8(_mm256_loadu_ps(gates + i), _mm256_loadu_ps(ups + i), p->tanh));
      for (int i = 0; i < count; i++) memcpy(p->out + (m + i) * p->width + at, ups + ROWS * i, width);
    }
  }
}

static _Thread_local struct { void *memory; size_t size; } scratch;

static void *room(size_t bytes) {
  if (scratch.size < bytes) {
    free(scratch.memory);
    scratch.size = 0;
    scratch.memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (scratch.memory) scratch.size = bytes;
  }
  return scratch.memory;
}

/* The rows as bytes, in this thread's memory, with `more` bytes behind them. */
static void *quantise(lm_product *p, long rows, long columns, size_t more) {
  size_t codes = (size_t)(rows * columns + 63) / 64 * 64, floats = (size_t)(rows * (columns / COLUMNS));
  int8_t *memory = room(codes + 4 * floats * sizeof(float) + more);
  if (!memory) return NULL;
  float *scales = (float *)(memory + codes);
  p->rows = (lm_rows){memory, scales, scales + floats, scales + 2 * floats, scales + 3 * floats, rows, columns};
  for (int i = 0; i < p->count; i++) p->panels += (p->parts[i].outputs + ROWS - 1) / ROWS;
  p->each = 8;
  lm_parallel(quantise_piece, p, (rows + p->each - 1) / p->each);
  return scales + 4 * floats;
}

/* out (M x width) = x (M x K) times the parts' rows, plus bias (width values or NULL). Returns 0, or
   1 where there was no memory for M x K bytes. */
int lm_linear(const float *x, long rows, long columns, const lm_part *parts, int count,
              const float *bias, float *out, long width) {
  lm_product p = {.x = x, .parts = parts, .count = count, .bias = bias, .out = out, .width = width};
  if (!quantise(&p, rows, columns, 0)) return 1;
  /* About 32 KB of weights a piece: long enough to be worth claiming, short enough to balance. */
  p.each = 65536 / (ROWS * columns);
  if (p.each < 1) p.each = 1;
  lm_parallel(product_piece, &p, (p.panels + p.each - 1) / p.each);
  return 0;
}

/* out (M x N) = act(x times the first part) * (x times the second), both of N rows and without bias.
   1: no memory. */
int lm_gated_linear(const float *x, long rows, long columns, const lm_part *parts, int tanh, float *out) {
  lm_product p = {.x = x, .parts = parts, .count = 2, .out = out, .width = parts->outputs, .tanh = tanh};
  if (!quantise(&p, rows, columns, 0)) return 1;
  p.panels /= 2;
  p.each = 32768 / (ROWS * columns);
  if (p.each < 1) p.each = 1;
  lm_parallel(gated_piece, &p, (p.panels + p.each - 1) / p.each);
  return 0;
}

enum { STRIP = 64 };

/* Whether any of 16 results may be more than `least`. No number may always. */
static int may_win(const float *most, float least) {
  const __m256 than = _mm256_set1_ps(least);
  __m256 a = _mm256_cmp_ps(_mm256_loadu_ps(most), than, _CMP_NLE_UQ);
  __m256 b = _mm256_cmp_ps(_mm256_loadu_ps(most + 8), than, _CMP_NLE_UQ);
  return _mm256_movemask_ps(_mm256_or_ps(a, b));
}

static void raise(_Atomic float *floor, float value) {
  float now = atomic_load_explicit(floor, memory_order_relaxed);
  while (now < value && !atomic_compare_exchange_weak(floor, &now, value)) {
  }
}

/* Which of a panel's 16 tokens a row may have, as bits. */
static inline uint32_t allowed(const lm_product *p, long row, long panel) {
  const uint32_t *mask = p->masks ? p->masks[row] : NULL;
  if (!mask) return 0xffff;
  return panel / 2 < p->words ? mask[panel / 2] >> panel % 2 * 16 & 0xffff : 0;
}

/* Of one piece's panels, each row's largest result that it may have and the first token that has it. */
static void greedy_piece(void *argument, long piece) {
  lm_product *p = argument;
  const lm_part *part = p->parts;
  lm_part rough = *part;
  rough.kind = Q8_ROUGH;
  const int screened = p->floors != NULL;
  long end = (piece + 1) * p->each < p->panels ? (piece + 1) * p->each : p->panels;
  for (long strip = 0; strip < p->rows.rows; strip += STRIP) {
    long rows = p->rows.rows - strip < STRIP ? p->rows.rows - strip : STRIP;
    struct best best[STRIP];
    float floors[STRIP];
    for (long m = 0; m < rows; m++) {
      best[m] = (struct best){-INFINITY, 0};
      floors[m] = screened ? atomic_load_explicit(p->floors + strip + m, memory_order_relaxed) : 0;
    }
    for (long number = piece * p->each; number < end; number++) {
      long tokens = part->outputs - number * ROWS < ROWS ? part->outputs - number * ROWS : ROWS;
      for (long m = 0; m < rows; m += MOST) {
        int count = rows - m < MOST ? (int)(rows - m) : MOST;
        float results[MOST * ROWS];
        chosen[screened ? Q8_ROUGH : part->kind](screened ? &rough : part, number, &p->rows, strip + m, count, results);
        for (int i = 0; i < count; i++) {
          float *found = results + ROWS * i, *least = &best[m + i].value;
          const uint32_t may = allowed(p, strip + m + i, number);
          if (!may || (screened && !may_win(found, floors[m + i]))) continue;
          if (screened) chosen[part->kind](part, number, &p->rows, strip + m + i, 1, found);
          for (int n = 0; n < tokens; n++)
            if (may >> n & 1 && (found[n] > *least || (found[n] != found[n] && *least == *least)))
              best[m + i] = (struct best){found[n], (int32_t)(number * ROWS + n)};
          if (floors[m + i] < *least) floors[m + i] = *least;
        }
      }
    }
    memcpy(p->best + piece * p->rows.rows + strip, best, (size_t)rows * sizeof *best);
    for (long m = 0; screened && m < rows; m++) raise(p->floors + strip + m, floors[m]);
  }
}

/* Each row's largest product with the part's rows (no number if any is none) and the first token that
   has it. Most tokens of a Q8 matrix are passed over by their upper four bits. `masks` is NULL or has
   for each row NULL or `words` words: bit t % 32 of word t / 32 says whether the row may have token
   t. A row that may have none gets minus infinity. 1: no memory. */
int lm_greedy(const float *x, long rows, long columns, const lm_part *part, const uint32_t *const *masks,
              long words, float *values, int64_t *tokens) {
  enum { PANELS = 32 };
  lm_product p = {.x = x, .parts = part, .count = 1, .masks = masks, .words = words};
  const int screened = part->kind == Q8;
  long pieces = ((part->outputs + ROWS - 1) / ROWS + PANELS - 1) / PANELS;
  size_t bests = (size_t)(pieces * rows) * sizeof(struct best), floors = (size_t)rows * sizeof(float);
  char *memory = quantise(&p, rows, columns, bests + floors);
  if (!memory) return 1;
  p.best = (struct best *)memory;
  p.floors = screened ? (_Atomic float *)(memory + bests) : NULL;
  for (long m = 0; screened && m < rows; m++) p.floors[m] = -INFINITY;
  p.each = PANELS;
  lm_parallel(greedy_piece, &p, pieces);
  for (long m = 0; m < rows; m++) {
    struct best best = p.best[m];
    for (long i = 1; i < pieces; i++) {
      struct best other = p.best[i * rows + m];
      if (other.value > best.value || (other.value != other.value && best.value == best.value)) best = other;
    }
    values[m] = best.value;
    tokens[m] = best.token;
  }
  return 0;
}
