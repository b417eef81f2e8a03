/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* info-space.c - see info-space.h. Only the top counts: what lies below a snapshot is not given back by deleting a file. */
#include "lib/info-space.h"

#include <string.h>

#include "base/checked.h"
#include "device/device.h"
#include "image/stack.h"
#include "io/io.h"
#include "lib/disk.h"
#include "lib/ext-look.h"
#include "lib/superblock.h"

struct sum {
	struct ploop_disk *disk;
	uint64_t bytes;
};

/* Bytes of blocks that a stretch of a file holds. */
static int add_blocks(struct io_file *file, uint64_t at, uint64_t end, uint64_t *sum)
{
	while (at < end) {
		uint64_t start, stop;
		int r = io_next_data(file, at, &start, &stop);

		if (r < 0)
			return r;
		if (start >= end || stop <= start)
			return 0;
		*sum += min_u64(stop, end) - max_u64(start, at);
		at = stop;
	}
	return 0;
}

/* What the top holds of a stretch of the disk. */
static int add_free(void *data, uint64_t offset, uint64_t length)
{
	struct sum *sum = data;
	const struct stack *stack = sum->disk->stack;
	const struct delta *top = &stack->levels[stack->nlevels - 1];
	uint32_t cluster = top->geometry.cluster;
	uint64_t end = min_u64(offset + length, device_size(sum->disk->device)), stop;
	int r = 0;

	for (; !r && offset < end; offset = stop) {
		struct device_place place = device_lookup(sum->disk->device, (uint32_t)(offset / cluster));
		uint64_t at = geometry_offset(&top->geometry, place.cluster) + offset % cluster;

		stop = min_u64(end, round_down(offset, cluster) + cluster);
		if (place.cluster && place.level + 1 == stack->nlevels)
			r = add_blocks(top->file, at, at + stop - offset, &sum->bytes);
	}
	return r;
}

void info_space(struct ploop_disk *disk, const struct superblock_source *source, struct ploop_info *ret)
{
	struct sum sum = { .disk = disk };
	struct ext_look look = { .free_range = add_free, .data = &sum };
	uint64_t start;

	if (superblock_find(source, &start) < 0 || ext_look(source, start, &look) < 0)
		return;
	ret->space_known = true;
	ret->reclaimable = sum.bytes;
	ret->balloon = look.balloon;
}
