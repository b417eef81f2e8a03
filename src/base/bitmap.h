/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bitmap.h - one bit a thing, for up to 2^32 things. Memory is mapped, not touched: a page of zero bits that nobody set
 * costs nothing.
 */
#ifndef BASE_BITMAP_H
#define BASE_BITMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bitmap {
	uint64_t *words;
	uint64_t bits;
	uint64_t set; /* how many bits are 1 */
};

/* All bits are 0. Returns 0 or -ENOMEM. */
int bitmap_init(struct bitmap *map, uint64_t bits);
void bitmap_fini(struct bitmap *map);

/* Makes room for `bits` bits; the new ones are 0. Never shrinks. */
int bitmap_grow(struct bitmap *map, uint64_t bits);

static inline bool bitmap_test(const struct bitmap *map, uint64_t bit)
{
	return map->words[bit / 64] >> (bit % 64) & 1;
}

/* Return what the bit was before. */
bool bitmap_set(struct bitmap *map, uint64_t bit);
bool bitmap_clear(struct bitmap *map, uint64_t bit);

/* All bits become 1. */
void bitmap_fill(struct bitmap *map);

/* The first 1 (or 0) at or after `from`; map->bits when there is none. */
uint64_t bitmap_next_set(const struct bitmap *map, uint64_t from);
uint64_t bitmap_next_clear(const struct bitmap *map, uint64_t from);

/* The last 1 before `end`; UINT64_MAX when there is none. */
uint64_t bitmap_last_set(const struct bitmap *map, uint64_t end);

#endif
