/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tracker.c - see tracker.h. */
#include "device/tracker.h"

#include <errno.h>

#include "base/checked.h"
#include "device/internal.h"

#define UNIT_LEAST 4096u
#define BITS_MOST (UINT64_C(1) << 29) /* 64 MiB of memory, for 2 TiB at 4 KiB */

int tracker_init(struct tracker *tracker, uint64_t size)
{
	tracker->unit = UNIT_LEAST;
	while (div_round_up(size, tracker->unit) > BITS_MOST)
		tracker->unit *= 2;
	list_init(&tracker->node);
	return bitmap_init(&tracker->dirty, div_round_up(size, tracker->unit));
}

int tracker_init_unit(struct tracker *tracker, uint64_t size, uint64_t unit)
{
	uint64_t bits = div_round_up(size, unit);

	tracker->unit = unit;
	list_init(&tracker->node);
	return bits > BITS_MOST ? -EFBIG : bitmap_init(&tracker->dirty, bits);
}

void tracker_fini(struct tracker *tracker)
{
	bitmap_fini(&tracker->dirty);
}

void tracker_mark(struct tracker *tracker, uint64_t start, uint64_t end)
{
	uint64_t last = min_u64(div_round_up(end, tracker->unit), tracker->dirty.bits);

	for (uint64_t bit = start / tracker->unit; bit < last; bit++)
		bitmap_set(&tracker->dirty, bit);
}

bool tracker_take(struct tracker *tracker, uint64_t from, uint64_t most, uint64_t *ret_start, uint64_t *ret_end)
{
	uint64_t first = bitmap_next_set(&tracker->dirty, from / tracker->unit), last = first;

	if (first == tracker->dirty.bits)
		return false;
	most = max_u64(most / tracker->unit, 1);
	while (last < tracker->dirty.bits && last - first < most && bitmap_clear(&tracker->dirty, last))
		last++;
	*ret_start = first * tracker->unit;
	*ret_end = last * tracker->unit;
	return true;
}

uint64_t tracker_dirty(const struct tracker *tracker)
{
	return tracker->dirty.set * tracker->unit;
}

void device_note(struct device *dev, uint64_t start, uint64_t end)
{
	list_for_each (node, &dev->trackers)
		tracker_mark(container_of(node, struct tracker, node), start, end);
}
