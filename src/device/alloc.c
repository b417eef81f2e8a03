/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* alloc.c - see alloc.h. */
#include "device/alloc.h"

#include <errno.h>

#include "base/checked.h"

int alloc_init(struct alloc *alloc, uint32_t first, uint64_t file, uint64_t limit)
{
	*alloc = (struct alloc){ .first = first, .lowest_free = first, .file = file, .opened = file, .limit = limit };
	if (!bitmap_init(&alloc->used, limit) && !bitmap_init(&alloc->clean, limit) &&
	    !bitmap_init(&alloc->freed, limit) && !bitmap_init(&alloc->retiring, limit))
		return 0;
	alloc_fini(alloc);
	return -ENOMEM;
}

void alloc_fini(struct alloc *alloc)
{
	bitmap_fini(&alloc->used);
	bitmap_fini(&alloc->clean);
	bitmap_fini(&alloc->freed);
	bitmap_fini(&alloc->retiring);
}

bool alloc_claim(struct alloc *alloc, uint32_t cluster)
{
	return !bitmap_set(&alloc->used, cluster);
}

uint32_t alloc_take_below(struct alloc *alloc, uint32_t count, uint64_t end, uint32_t *ret)
{
	uint64_t at = bitmap_next_clear(&alloc->used, alloc->lowest_free);
	uint32_t n;

	alloc->lowest_free = at;
	end = min_u64(end, alloc->limit);
	for (n = 0; n < count && at + n < end && !bitmap_test(&alloc->used, at + n); n++)
		bitmap_set(&alloc->used, at + n);
	if (n) {
		*ret = (uint32_t)at;
		alloc->lowest_free = at + n;
	}
	return n;
}

uint32_t alloc_take(struct alloc *alloc, uint32_t count, uint32_t *ret)
{
	return alloc_take_below(alloc, count, alloc->limit, ret);
}

static void alloc_release(struct alloc *alloc, uint64_t cluster)
{
	bitmap_clear(&alloc->used, cluster);
	alloc->lowest_free = max_u64(alloc->first, min_u64(alloc->lowest_free, cluster));
}

/* What was written there counts as old data from now on. */
static void alloc_soil(struct alloc *alloc, uint32_t cluster)
{
	/* Those between the old and the new border were never written. */
	for (uint64_t k = alloc->opened; k < cluster; k++)
		if (!bitmap_test(&alloc->used, k))
			bitmap_set(&alloc->clean, k);
	alloc->opened = max_u64(alloc->opened, (uint64_t)cluster + 1);
	bitmap_clear(&alloc->clean, cluster);
}

void alloc_untake(struct alloc *alloc, uint32_t cluster, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		alloc_soil(alloc, cluster + i);
		alloc_release(alloc, cluster + i);
	}
}

void alloc_free(struct alloc *alloc, uint32_t cluster, bool clean)
{
	if (clean)
		bitmap_set(&alloc->clean, cluster);
	else
		alloc_soil(alloc, cluster);
#ifdef DEVICE_BREAK_REUSE
	alloc_release(alloc, cluster);
#else
	bitmap_set(&alloc->freed, cluster);
#endif
}

void alloc_commit_start(struct alloc *alloc)
{
	struct bitmap swap = alloc->freed;

	alloc->freed = alloc->retiring;
	alloc->retiring = swap;
}

void alloc_commit_done(struct alloc *alloc)
{
	uint64_t k = 0;

	while (alloc->retiring.set) {
		k = bitmap_next_set(&alloc->retiring, k);
		bitmap_clear(&alloc->retiring, k);
		alloc_release(alloc, k);
	}
}

bool alloc_stale(const struct alloc *alloc, uint32_t cluster, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (cluster + i < alloc->opened && !bitmap_test(&alloc->clean, cluster + i))
			return true;
	return false;
}

void alloc_cleaned(struct alloc *alloc, uint32_t cluster, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		bitmap_set(&alloc->clean, cluster + i);
}

uint64_t alloc_end(const struct alloc *alloc)
{
	uint64_t last = bitmap_last_set(&alloc->used, alloc->limit);

	return last == UINT64_MAX || last < alloc->first ? alloc->first : last + 1;
}

int alloc_grow(struct alloc *alloc, uint64_t limit)
{
	if (bitmap_grow(&alloc->used, limit) || bitmap_grow(&alloc->clean, limit) ||
	    bitmap_grow(&alloc->freed, limit) || bitmap_grow(&alloc->retiring, limit))
		return -ENOMEM;
	alloc->limit = max_u64(alloc->limit, limit);
	return 0;
}

void alloc_set_first(struct alloc *alloc, uint32_t first)
{
	alloc->lowest_free = first > alloc->first ? max_u64(first, alloc->lowest_free) : first;
	alloc->first = first;
}

static bool alloc_waits(const struct alloc *alloc, uint64_t cluster)
{
	return bitmap_test(&alloc->freed, cluster) || bitmap_test(&alloc->retiring, cluster);
}

bool alloc_named(const struct alloc *alloc, uint64_t from, uint64_t end)
{
	end = min_u64(end, alloc->limit);
	for (uint64_t k = bitmap_next_set(&alloc->used, from); k < end; k = bitmap_next_set(&alloc->used, k + 1))
		if (!alloc_waits(alloc, k))
			return true;
	return false;
}

uint64_t alloc_count(const struct alloc *alloc)
{
	return alloc->used.set - alloc->freed.set - alloc->retiring.set;
}

uint32_t alloc_take_stale(struct alloc *alloc, uint64_t from, uint32_t count, uint32_t *ret)
{
	uint64_t end = alloc_end(alloc), at = bitmap_next_clear(&alloc->used, max_u64(from, alloc->first));
	uint32_t n = 0;

	while (at < end && !alloc_stale(alloc, (uint32_t)at, 1))
		at = bitmap_next_clear(&alloc->used, at + 1);
	while (n < count && at + n < end && !bitmap_test(&alloc->used, at + n) &&
	       alloc_stale(alloc, (uint32_t)at + n, 1))
		bitmap_set(&alloc->used, at + n++);
	*ret = (uint32_t)at;
	return n;
}

void alloc_return(struct alloc *alloc, uint32_t cluster, uint32_t count, bool clean)
{
	for (uint32_t i = 0; i < count; i++) {
		if (clean)
			bitmap_set(&alloc->clean, cluster + i);
		else
			alloc_soil(alloc, cluster + i);
		alloc_release(alloc, cluster + i);
	}
}
