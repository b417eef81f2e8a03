/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* merge-turn.c - from the upper levels to `low` in the merged map: a cluster, all, and the stack at the end. No I/O. */
#include <string.h>

#include "device/merge.h"

uint32_t merge_entry(const struct device_merge *merge, uint32_t v)
{
	return merge->target->delta->format->has_index ? writer_entry(merge->target, v) : v + 1;
}

void merge_turn_map(struct device_merge *merge, uint32_t v)
{
	struct map *map = &merge->device->map;
	uint32_t cluster = merge_entry(merge, v);

	map_clear(map, v);
	if (cluster)
		map_cover(map, v, merge->low, cluster);
	if (merge->low)
		bitmap_set(&map->below, v);
	else
		bitmap_clear(&map->below, v);
}

/* The levels first .. last are gone; those above move down. */
static void merge_drop_levels(struct device *dev, unsigned first, unsigned last)
{
	unsigned gone = last - first + 1;

	memmove(&dev->levels[first], &dev->levels[last + 1], (dev->nlevels - last - 1) * sizeof(dev->levels[0]));
	dev->nlevels -= gone;
	dev->writer->level -= gone;
	dev->writer->delta = &dev->levels[dev->writer->level];
	dev->top = dev->writer->delta;
}

void merge_turn_lower(struct device_merge *merge)
{
	struct device *dev = merge->device;
	unsigned gone = merge->high - merge->low;

	for (uint32_t v = 0; v < dev->map.count; v++) {
		unsigned level = dev->map.level[v];

		if (!dev->map.cluster[v] || level < merge->low)
			continue;
		if (level > merge->high) {
			dev->map.level[v] = (uint8_t)(level - gone);
			continue;
		}
		if (level > merge->low)
			merge_turn_map(merge, v);
	}
	merge_drop_levels(dev, merge->low + 1, merge->high);
}

struct writer *merge_turn_top(struct device_merge *merge)
{
	struct device *dev = merge->device;
	struct writer *old = dev->writer;

	old->heir = false;
	dev->writer = dev->under;
	if (dev->shadow)
		shadow_level_set_top(dev->writer->shadow);
	dev->under = NULL;
	dev->under_end = 0;
	dev->nlevels--;
	dev->top = dev->writer->delta;
	map_fini(&dev->writer->own); /* nothing lies over it: the merged map knows it whole */
	return old;
}

void merge_map_raw(struct device_merge *merge)
{
	struct map *map = &merge->device->map;

	for (uint32_t v = merge->lock.first; v <= merge->lock.last; v++)
		if (!map->cluster[v])
			map_cover(map, v, merge->low, v + 1);
}
