/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* merge-copy.c - the copies of a batch: a few at a time, in the order of the disk, each as long as clusters lie together. */
#include "base/checked.h"
#include "device/merge.h"

static const struct map *merge_source_map(const struct device_merge *merge)
{
	return merge->top ? &merge->device->map : &merge->sources;
}

const struct delta *merge_source(const struct device_merge *merge, uint32_t v, uint32_t *ret_cluster)
{
	const struct device *dev = merge->device;
	const struct map *map = merge_source_map(merge);

	if (!map->cluster[v] || (merge->top && map->level[v] != device_top_level(dev)))
		return NULL;
	*ret_cluster = map->cluster[v];
	return &dev->levels[map->level[v]];
}

/* How many of the `most` clusters from v on the target has in a row too, or has not at all. */
static uint32_t merge_target_run(const struct device_merge *merge, uint32_t v, uint32_t most)
{
	uint32_t cluster = merge_entry(merge, v), n = 1;

	while (n < most && merge_entry(merge, v + n) == (cluster ? cluster + n : 0))
		n++;
	return n;
}

/* Finds a place for the copy of the slot's clusters in the target, or of the first of them. 0 or a negative errno. */
static int merge_place(struct device_merge *merge, struct merge_copy *slot)
{
	struct copy *copy = &slot->copy;
	int r;

	copy->to_cluster = merge_entry(merge, slot->v);
	slot->fresh = !copy->to_cluster;
	copy->stale = true;
	if (!slot->fresh)
		return 0;
	r = writer_allocate(merge->target, slot->count, &copy->to_cluster);
	if (r < 0)
		return r;
	slot->count = (uint32_t)r;
	copy->stale = alloc_stale(&merge->target->alloc, copy->to_cluster, slot->count);
	return 0;
}

/* Bytes of the slot's clusters that count: a raw delta ends where the disk does. */
static uint64_t merge_length(const struct device_merge *merge, const struct merge_copy *slot)
{
	const struct device *dev = merge->device;

	if (merge->target->delta->format->has_index)
		return (uint64_t)slot->count * dev->cluster;
	return device_cluster_end(dev, slot->v + slot->count - 1) - (uint64_t)slot->v * dev->cluster;
}

static void merge_start_copy(struct device_merge *merge, struct merge_copy *slot)
{
	struct copy *copy = &slot->copy;
	int r = merge_place(merge, slot);

	if (r) {
		merge->result = r;
		return;
	}
	merge->next = slot->v + slot->count;
	copy->to = merge->target->delta;
	copy->length = merge_length(merge, slot);
	slot->busy = true;
	merge->busy++;
	merge->copied = true;
	copy_start(copy);
}

/* The last cluster of a raw delta may be cut short: it goes alone, as it cannot be cloned. */
static bool merge_is_short(const struct device_merge *merge, uint32_t v)
{
	const struct device *dev = merge->device;

	return !merge->target->delta->format->has_index &&
	       device_cluster_end(dev, v) < ((uint64_t)v + 1) * dev->cluster;
}

/* The next clusters of the batch that have something to copy, into the slot. */
static bool merge_next(struct device_merge *merge, struct merge_copy *slot)
{
	const struct delta *to = merge->target->delta;
	uint32_t most;

	while (merge->next < merge->end && !merge_source(merge, merge->next, &slot->copy.from_cluster))
		merge->next++;
	if (merge->next == merge->end)
		return false;
	slot->v = merge->next;
	slot->copy.from = merge_source(merge, slot->v, &slot->copy.from_cluster);
	most = (uint32_t)min_u64(merge->end - slot->v, copy_most(merge->device, to, slot->copy.from));
	most = map_run(merge_source_map(merge), slot->v, most);
	slot->count = merge_target_run(merge, slot->v, most);
	if (slot->count > 1 && merge_is_short(merge, slot->v + slot->count - 1))
		slot->count--;
	return true;
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

/* One cluster of the slot has been copied, or was tried to. */
static void merge_note(struct device_merge *merge, const struct merge_copy *slot, uint32_t i, int result)
{
	uint32_t v = slot->v + i, cluster = slot->copy.to_cluster + i;

	/* From now on something lies under the source's cluster: should the merge end early, it must be masked, not unmapped. */
	bitmap_set(&merge->device->map.below, v);
	/* Zeros need no place in the base. */
	if (slot->fresh && (result || (!copy_stored(&slot->copy, i) && !merge->low)))
		alloc_untake(&merge->target->alloc, cluster, 1);
	else if (slot->fresh)
		writer_set_entry(merge->target, v, cluster);
}

static void merge_copied(struct copy *copy, int result)
{
	struct merge_copy *slot = container_of(copy, struct merge_copy, copy);
	struct device_merge *merge = slot->merge;

	slot->busy = false;
	merge->busy--;
	merge->moved += (uint64_t)slot->count * merge->device->cluster;
	if (result && !merge->result)
		merge->result = result;
	for (uint32_t i = 0; i < slot->count; i++)
		merge_note(merge, slot, i, result);
	merge_copy(merge);
}

void merge_copy_init(struct device_merge *merge)
{
	for (unsigned i = 0; i < MERGE_COPIES; i++) {
		struct merge_copy *slot = &merge->copies[i];

		slot->merge = merge;
		slot->copy.device = merge->device;
		slot->copy.done = merge_copied;
		slot->copy.buffer = (char *)merge->buffers + (size_t)i * COPY_CHUNK;
	}
}
