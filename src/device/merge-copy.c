/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* merge-copy.c - the copies of a batch: a few clusters at a time, in the order of the disk. */
#include "device/merge.h"

const struct delta *merge_source(const struct device_merge *merge, uint32_t v, uint32_t *ret_cluster)
{
	const struct device *dev = merge->device;
	const struct map *map = merge->top ? &dev->map : &merge->sources;

	if (!map->cluster[v] || (merge->top && map->level[v] != device_top_level(dev)))
		return NULL;
	*ret_cluster = map->cluster[v];
	return &dev->levels[map->level[v]];
}

/* Finds a place for the copy of cluster v in the target. 0 or a negative errno. */
static int merge_place(struct device_merge *merge, struct merge_copy *slot)
{
	struct copy *copy = &slot->copy;
	int r;

	copy->to_cluster = merge_entry(merge, slot->v);
	slot->fresh = !copy->to_cluster;
	copy->stale = true;
	if (!slot->fresh)
		return 0;
	r = writer_allocate(merge->target, 1, &copy->to_cluster);
	if (r < 0)
		return r;
	copy->stale = alloc_stale(&merge->target->alloc, copy->to_cluster, 1);
	return 0;
}

static void merge_start_copy(struct device_merge *merge, struct merge_copy *slot)
{
	const struct device *dev = merge->device;
	struct copy *copy = &slot->copy;
	int r = merge_place(merge, slot);

	if (r) {
		merge->result = r;
		return;
	}
	copy->to = merge->target->delta;
	copy->length = dev->cluster;
	if (!copy->to->format->has_index)
		copy->length = device_cluster_end(dev, slot->v) - (uint64_t)slot->v * dev->cluster;
	slot->busy = true;
	merge->busy++;
	merge->copied = true;
	copy_start(copy);
}

/* The next cluster of the batch that has something to copy, into the slot. */
static bool merge_next(struct device_merge *merge, struct merge_copy *slot)
{
	while (merge->next < merge->end) {
		slot->v = merge->next++;
		slot->copy.from = merge_source(merge, slot->v, &slot->copy.from_cluster);
		if (slot->copy.from)
			return true;
	}
	return false;
}

void merge_copy(struct device_merge *merge)
{
	for (unsigned i = 0; i < MERGE_COPIES && !merge->result; i++) {
		struct merge_copy *slot = &merge->copies[i];

		if (slot->busy)
			continue;
		if (!merge_next(merge, slot))
			break;
		merge_start_copy(merge, slot);
	}
	if (!merge->busy)
		merge_settle(merge);
}

static void merge_copied(struct copy *copy, int result)
{
	struct merge_copy *slot = container_of(copy, struct merge_copy, copy);
	struct device_merge *merge = slot->merge;

	slot->busy = false;
	merge->busy--;
	merge->moved += merge->device->cluster;
	if (result && !merge->result)
		merge->result = result;
	/* From now on something lies under the source's cluster: should the merge end early, it must be masked, not unmapped. */
	bitmap_set(&merge->device->map.below, slot->v);
	/* Zeros need no place in the base. */
	if (slot->fresh && (result || (!copy->stored && !merge->low)))
		alloc_untake(&merge->target->alloc, copy->to_cluster, 1);
	else if (slot->fresh)
		writer_set_entry(merge->target, slot->v, copy->to_cluster);
	merge_copy(merge);
}

void merge_copy_init(struct device_merge *merge)
{
	for (unsigned i = 0; i < MERGE_COPIES; i++) {
		struct merge_copy *slot = &merge->copies[i];

		slot->merge = merge;
		slot->copy.device = merge->device;
		slot->copy.done = merge_copied;
		slot->copy.buffer_size = merge_buffer_size(merge->device);
		slot->copy.buffer = (char *)merge->buffers + (size_t)i * slot->copy.buffer_size;
	}
}
