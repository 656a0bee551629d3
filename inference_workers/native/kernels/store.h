#pragma once
#include <stdint.h>

/* One layer's store: `blocks` of `block` tokens, heads and sizes as below; float16 if `half`. */
typedef struct {
  void *keys, *values;
  int64_t half, block, heads, key_size, value_size;
} lm_store;
