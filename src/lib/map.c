/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* map.c - how the clusters of a disk lie in its files, as extents. */
#include <ploop/ploop.h>

#include "base/checked.h"
#include "device/device.h"
#include "image/stack.h"
#include "lib/disk.h"

/* Whether `next` goes on where `place` was, one cluster later: nowhere after nowhere, or the next cluster of a file. */
static bool follows(struct device_place place, struct device_place next)
{
	if (!place.cluster || !next.cluster)
		return place.cluster == next.cluster;
	return next.level == place.level && next.cluster == place.cluster + 1;
}

bool ploop_disk_extent(const struct ploop_disk *disk, uint64_t offset, struct ploop_extent *ret)
{
	uint64_t size = device_size(disk->device);
	uint32_t cluster = device_cluster(disk->device);
	uint32_t first, v, end = (uint32_t)div_round_up(size, cluster);
	struct device_place start, place, next;
	bool partial;

	if (offset >= size)
		return false;
	first = (uint32_t)(offset / cluster);
	start = place = device_lookup(disk->device, first);
	partial = device_is_partial(disk->device, first);
	for (v = first + 1; v < end; v++) {
		next = device_lookup(disk->device, v);
		if (!follows(place, next) || device_is_partial(disk->device, v) != partial)
			break;
		place = next;
	}
	*ret = (struct ploop_extent){
		.offset = (uint64_t)first * cluster, .mapped = start.cluster != 0, .partial = partial
	};
	ret->length = min_u64((uint64_t)v * cluster, size) - ret->offset;
	if (ret->mapped) {
		ret->level = start.level;
		ret->file_offset = geometry_offset(&disk->stack->levels[start.level].geometry, start.cluster);
	}
	return true;
}
