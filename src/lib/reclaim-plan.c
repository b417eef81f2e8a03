/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * reclaim-plan.c - how much ploop_reclaim() would give back. What the file system does not use is known (fsmap.c of a mounted one,
 * ext-free.c of another); the index of the top's image says where that lies in the file, and the host which of it has blocks. Of
 * a disk in use all that is a moment old.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/range.h"
#include "lib/disk.h"
#include "lib/fiemap.h"
#include "lib/fsmap.h"
#include "lib/inside.h"
#include "lib/reclaim.h"

#define DEPTH 4
#define HOST_BLOCK 4096u /* what a host gives back has a multiple of it */

struct plan {
	const struct ploop_reclaim *what;
	struct ploop_disk *disk;
	struct ploop_level top;
	struct ranges free;   /* of the disk */
	struct ranges mapped; /* of the file, with its index */
	struct ranges gone;   /* of the file: what is released */
	struct ranges blocks; /* of the file: what the host holds */
	uint64_t whole;       /* clusters that go */
	struct ploop_reclaimed result;
};

static void clear(struct plan *plan)
{
	ranges_clear(&plan->free);
	ranges_clear(&plan->mapped);
	ranges_clear(&plan->gone);
	ranges_clear(&plan->blocks);
	ploop_disk_close(plan->disk);
}

/* One stretch of the top: of the disk at `extent->offset`, of the file at `file_offset`. *i is the first free one that may matter. */
static int add_extent(struct plan *plan, const struct ploop_extent *extent, size_t *i)
{
	uint64_t end = extent->offset + extent->length, cluster = plan->result.cluster;
	int r = ranges_add(&plan->mapped, extent->file_offset, extent->length);

	while (*i < plan->free.n && plan->free.list[*i].offset + plan->free.list[*i].length <= extent->offset)
		++*i;
	for (size_t k = *i; r == 0 && k < plan->free.n && plan->free.list[k].offset < end; k++) {
		const struct range *range = &plan->free.list[k];
		uint64_t from = max_u64(range->offset, extent->offset);
		uint64_t to = min_u64(range->offset + range->length, end);

		if (range->length < plan->what->min_block)
			continue;
		r = ranges_add(&plan->gone, extent->file_offset + (from - extent->offset), to - from);
		from = round_up(from, cluster);
		plan->whole += from < to ? (to - from) / cluster : 0;
	}
	return r;
}

static int add_extents(struct plan *plan, uint64_t *ret_clusters)
{
	unsigned top = ploop_disk_levels(plan->disk) - 1;
	struct ploop_extent extent;
	uint64_t clusters = 0;
	size_t i = 0;
	int r = ranges_add(&plan->mapped, 0, plan->top.data_start);

	for (uint64_t at = 0; r == 0 && ploop_disk_extent(plan->disk, at, &extent);
	     at = extent.offset + extent.length) {
		if (!extent.mapped || extent.level != top)
			continue;
		clusters += div_round_up(extent.length, plan->result.cluster);
		r = add_extent(plan, &extent, &i);
	}
	*ret_clusters = clusters;
	return r;
}

static int find_blocks(struct plan *plan, struct ploop_error *err)
{
	_close_ int fd = open(plan->top.path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return error_sys(err, -errno, PLOOP_EXIT_OPEN, "%s", plan->top.path);
	return fiemap_allocated(fd, &plan->blocks, err);
}

static int compute(struct plan *plan, struct ploop_error *err)
{
	uint64_t held, clusters, freed;
	int r;

	ranges_sort(&plan->free);
	r = add_extents(plan, &clusters);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_MALLOC, "%s", plan->top.path);
	ranges_sort(&plan->mapped);
	ranges_sort(&plan->gone);
	ranges_align(&plan->gone, HOST_BLOCK);
	r = find_blocks(plan, err);
	if (r < 0)
		return r;
	/* What the file holds for no entry of its index goes too. */
	held = ranges_common(&plan->blocks, &plan->mapped);
	freed = ranges_common(&plan->blocks, &plan->gone) + (ranges_sum(&plan->blocks) - held);
	plan->result.allocated_before = plan->top.allocated;
	plan->result.allocated = plan->top.allocated - min_u64(freed, plan->top.allocated);
	plan->result.length_before = plan->top.length;
	plan->result.length =
		min_u64(plan->top.length, plan->top.data_start + (clusters - plan->whole) * plan->result.cluster);
	return 0;
}

static int open_plan(struct plan *plan, const char *const *images, size_t n, bool unlocked, struct ploop_error *err)
{
	const struct ploop_files files = { .paths = images, .npaths = (unsigned)n, .outside = true, .in_use = unlocked };
	const struct disk_config config = { .files = &files, .depth = DEPTH };
	int r = disk_open(&config, &plan->disk, err);

	if (r < 0)
		return r;
	plan->result.cluster = ploop_disk_cluster(plan->disk);
	return ploop_disk_level(plan->disk, ploop_disk_levels(plan->disk) - 1, &plan->top, err);
}

/* Of a disk that is served: the index in the file is whole after the file system was synced. */
static int plan_device(struct plan *plan, const struct inside *inside, struct ploop_error *err)
{
	const struct ploop_device *device = &inside->entry.device;
	int r = 0;

	if (inside->root >= 0 && !plan->what->no_trim) {
		if (syncfs(inside->root) < 0)
			return error_sys(err, -errno, PLOOP_EXIT_FSYNC, "%s", device->device);
		r = fsmap_free(inside->root, &plan->free, err);
		plan->result.trimmed = r == 0;
	}
	for (size_t i = 0; i < plan->free.n; i++) {
		struct range *range = &plan->free.list[i];

		if (range->offset > inside->end - inside->start ||
		    range->length > inside->end - inside->start - range->offset)
			return error_set(err, -EUCLEAN, PLOOP_EXIT_FSCK,
					 "%s: its file system goes beyond its end; check it", inside->path);
		range->offset += inside->start;
	}
	if (r == 0)
		r = open_plan(plan, (const char *const *)device->images, device->nimages, true, err);
	return r < 0 ? r : compute(plan, err);
}

static int plan_files(struct plan *plan, struct ploop_error *err)
{
	struct ploop_error why;
	int r = open_plan(plan, &plan->what->which.image, 1, false, err);

	if (r < 0)
		return r;
	if (!plan->what->no_trim) {
		plan->result.trimmed = reclaim_find_free(plan->disk, &plan->free, &why);
		if (!plan->result.trimmed)
			log_warning("%s: %s", plan->top.path, why.text);
	}
	return compute(plan, err);
}

int ploop_reclaim_estimate(const struct ploop_reclaim *reclaim, struct ploop_reclaimed *ret, struct ploop_error *err)
{
	struct inside inside = INSIDE_NONE;
	struct plan plan = { .what = reclaim };
	struct ploop_error other;
	int r, closed;

	r = inside_open(&reclaim->which, reclaim->automount ? INSIDE_AUTOMOUNT : INSIDE_MAYBE, &inside, err);
	if (r == -ENODEV && reclaim->which.image)
		r = plan_files(&plan, err);
	else if (r == 0)
		r = plan_device(&plan, &inside, err);
	clear(&plan);
	closed = inside_close(&inside, r < 0 ? &other : err);
	if (r == 0)
		r = closed;
	if (r == 0)
		*ret = plan.result;
	return r;
}
