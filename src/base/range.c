/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* range.c - see range.h. */
#include "base/range.h"

#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"

int ranges_add(struct ranges *ranges, uint64_t offset, uint64_t length)
{
	struct range *last = ranges->n ? &ranges->list[ranges->n - 1] : NULL;

	if (!length)
		return 0;
	if (last && last->offset + last->length == offset) {
		last->length += length;
		return 0;
	}
	if (ranges->n == ranges->room) {
		size_t room = ranges->room ? 2 * ranges->room : 64;
		struct range *list = reallocarray(ranges->list, room, sizeof(*list));

		if (!list)
			return -ENOMEM;
		ranges->list = list;
		ranges->room = room;
	}
	ranges->list[ranges->n++] = (struct range){ offset, length };
	return 0;
}

static int by_offset(const void *a, const void *b)
{
	const struct range *one = a, *other = b;

	return one->offset < other->offset ? -1 : one->offset > other->offset;
}

void ranges_sort(struct ranges *ranges)
{
	size_t to = 0;

	if (!ranges->n)
		return;
	qsort(ranges->list, ranges->n, sizeof(*ranges->list), by_offset);
	for (size_t i = 1; i < ranges->n; i++) {
		const struct range *next = &ranges->list[i];
		struct range *last = &ranges->list[to];

		if (next->offset <= last->offset + last->length)
			last->length = max_u64(last->length, next->offset - last->offset + next->length);
		else
			ranges->list[++to] = *next;
	}
	ranges->n = to + 1;
}

void ranges_align(struct ranges *ranges, uint64_t unit)
{
	size_t to = 0;

	for (size_t i = 0; i < ranges->n; i++) {
		uint64_t start = ranges->list[i].offset, end = start + ranges->list[i].length;

		if (start > UINT64_MAX - unit + 1)
			continue;
		start = round_up(start, unit);
		end = round_down(end, unit);
		if (start < end)
			ranges->list[to++] = (struct range){ start, end - start };
	}
	ranges->n = to;
}

uint64_t ranges_common(const struct ranges *one, const struct ranges *other)
{
	uint64_t sum = 0;

	for (size_t i = 0, j = 0; i < one->n && j < other->n;) {
		const struct range *a = &one->list[i], *b = &other->list[j];
		uint64_t start = max_u64(a->offset, b->offset);
		uint64_t end_a = a->offset + a->length, end_b = b->offset + b->length, end = min_u64(end_a, end_b);

		sum += end > start ? end - start : 0;
		if (end_a <= end_b)
			i++;
		else
			j++;
	}
	return sum;
}

uint64_t ranges_sum(const struct ranges *ranges)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < ranges->n; i++)
		sum += ranges->list[i].length;
	return sum;
}

void ranges_clear(struct ranges *ranges)
{
	free(ranges->list);
	*ranges = (struct ranges){ .n = 0 };
}
