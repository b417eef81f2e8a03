/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bitmap.c - see bitmap.h. Searches skip whole words. */
#include "base/bitmap.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

static size_t bitmap_bytes(uint64_t bits)
{
	return ((bits + 63) / 64 + 1) * sizeof(uint64_t);
}

int bitmap_init(struct bitmap *map, uint64_t bits)
{
	void *words = mmap(NULL, bitmap_bytes(bits), PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (words == MAP_FAILED)
		return -ENOMEM;
	*map = (struct bitmap){ .words = words, .bits = bits };
	return 0;
}

void bitmap_fini(struct bitmap *map)
{
	if (map->words)
		munmap(map->words, bitmap_bytes(map->bits));
	*map = (struct bitmap){ 0 };
}

int bitmap_grow(struct bitmap *map, uint64_t bits)
{
	void *words;

	if (bits <= map->bits)
		return 0;
	words = mremap(map->words, bitmap_bytes(map->bits), bitmap_bytes(bits), MREMAP_MAYMOVE);
	if (words == MAP_FAILED)
		return -ENOMEM;
	map->words = words;
	map->bits = bits;
	return 0;
}

bool bitmap_set(struct bitmap *map, uint64_t bit)
{
	uint64_t mask = UINT64_C(1) << (bit % 64);
	bool was = map->words[bit / 64] & mask;

	if (!was) {
		map->words[bit / 64] |= mask;
		map->set++;
	}
	return was;
}

bool bitmap_clear(struct bitmap *map, uint64_t bit)
{
	uint64_t mask = UINT64_C(1) << (bit % 64);
	bool was = map->words[bit / 64] & mask;

	if (was) {
		map->words[bit / 64] &= ~mask;
		map->set--;
	}
	return was;
}

void bitmap_fill(struct bitmap *map)
{
	memset(map->words, 0xff, map->bits / 64 * sizeof(uint64_t));
	if (map->bits % 64)
		map->words[map->bits / 64] = (UINT64_C(1) << (map->bits % 64)) - 1;
	map->set = map->bits;
}

static uint64_t bitmap_search(const struct bitmap *map, uint64_t from, uint64_t flip)
{
	uint64_t words = (map->bits + 63) / 64;
	uint64_t word = from / 64;
	uint64_t value;

	if (from >= map->bits)
		return map->bits;
	value = (map->words[word] ^ flip) & (~UINT64_C(0) << (from % 64));
	while (!value) {
		if (++word >= words)
			return map->bits;
		value = map->words[word] ^ flip;
	}
	from = word * 64 + (uint64_t)__builtin_ctzll(value);
	return from < map->bits ? from : map->bits;
}

uint64_t bitmap_next_set(const struct bitmap *map, uint64_t from)
{
	return bitmap_search(map, from, 0);
}

uint64_t bitmap_next_clear(const struct bitmap *map, uint64_t from)
{
	return bitmap_search(map, from, ~UINT64_C(0));
}

uint64_t bitmap_last_set(const struct bitmap *map, uint64_t end)
{
	uint64_t word;

	if (end > map->bits)
		end = map->bits;
	for (word = (end + 63) / 64; word-- > 0;) {
		uint64_t value = map->words[word];

		if (word == end / 64)
			value &= (UINT64_C(1) << (end % 64)) - 1;
		if (value)
			return word * 64 + 63 - (uint64_t)__builtin_clzll(value);
	}
	return UINT64_MAX;
}
