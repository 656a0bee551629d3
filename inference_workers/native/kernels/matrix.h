/* Packed matrices, and the products of their panels with quantised rows.

   A matrix of N rows and K columns is cut into panels of 16 rows, a panel into tiles of 16 rows by
   32 columns. A weight is `scale * (code - zero) + minimum`; scales and minimums are float16, one a
   row and tile (two scales a tile for Q8G16, one each 16 columns). A tile of the first plane holds

       scales (16 or 2 x 16 halves), minimums (16 halves, where the kind has them), 256 bytes

   and the bytes hold four bits of each code: byte 32 k + 4 r + c has row r, column 4 k + c below and
   row r + 8, the same column, above (r < 8, c < 4, k < 8). Tiles follow each other column by column,
   then panel by panel. The second plane, if any, holds what four bits cannot: the lower four bits in
   the same order (256 bytes; the first plane then has the upper ones), or a fifth bit (64 bytes:
   bit k of byte 4 r + c is that of row r, column 4 k + c, for all 16 rows). */
#pragma once
#include <stdint.h>

enum { ROWS = 16, COLUMNS = 32, NIBBLES = 256, FIFTHS = 64, MOST = 4 };
typedef enum { Q4M, Q5, Q8, Q8G16, Q8M, Q8_ROUGH, KINDS } lm_kind;
/* Q8_ROUGH reads a Q8 matrix by its first plane alone, the lower four bits taken to be 7.5. */

/* Rows of activations as signed bytes with a scale for each 32 of them. `sum` and `first` are the
   scaled sums of all 32 and of the first 16. */
typedef struct {
  int8_t *codes;            /* M x K */
  float *scale, *sum, *first; /* M x K / 32 */
  long rows, columns;
} lm_rows;

typedef struct {
  int32_t kind;
  int32_t outputs;        /* N, not yet a multiple of 16 */
  int32_t columns;        /* K, a multiple of 32 */
  int32_t at;             /* where this part's outputs begin in a row of the result */
  const uint8_t *first, *second;
} lm_part;

/* 16 outputs of `count` <= MOST rows from row `at` on, into `out` (`count` x 16). */
typedef void (*lm_panel)(const lm_part *part, long panel, const lm_rows *rows, long at, int count,
                         float *out);

lm_panel lm_panel_avx2(lm_kind kind);
lm_panel lm_panel_avx512(lm_kind kind);

static inline long lm_first_tile(lm_kind kind) {
  return NIBBLES + (kind == Q8G16 || kind == Q4M || kind == Q8M ? 4 : 2) * ROWS;
}
static inline long lm_second_tile(lm_kind kind) {
  return kind == Q4M || kind == Q8_ROUGH ? 0 : kind == Q5 ? FIFTHS : NIBBLES;
}
static inline float lm_zero(lm_kind kind) {
  return kind == Q4M || kind == Q8M ? 0 : kind == Q5 ? 16 : kind == Q8_ROUGH ? 120.5f : 128;
}
