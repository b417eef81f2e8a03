/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * resize.c - a disk changes its size: what is common to all ways of that. They are told by what is there and not by what was
 * done, so that a resize that was interrupted is finished by the same call again, or undone by another.
 */
#include "lib/resize.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "image/create.h"
#include "image/stack.h"
#include "image/tree.h"

#define SMALLEST_CLUSTERS 4 /* a disk has more than so many, as the original has it */

int resize_stage(const struct resize *resize, const char *stage, struct ploop_error *err)
{
	const struct ploop_resize *what = resize->what;

	if (!what || !what->progress || !what->progress(what->progress_data, stage, 0, 0))
		return 0;
	return error_set(err, -ECANCELED, PLOOP_EXIT_ABORT, "%s: the resize was stopped", resize->change.path);
}

int resize_too_small(const struct resize *resize, uint64_t minimum, struct ploop_error *err)
{
	return error_set(err, -ENOSPC, PLOOP_EXIT_PARAM,
			 "Unable to change image size to %" PRIu64 " sectors, minimal size is %" PRIu64,
			 resize->target / SECTOR, minimum / SECTOR);
}

/*
 * One that was interrupted when the small file system was on the disk already, in a snapshot that is temporary: that is merged as
 * any of its kind that nobody uses.
 */
static int finish_interrupted(struct change *change, bool *ret_again, struct ploop_error *err)
{
	const struct snapshot *top = descriptor_top(change->descriptor), *parent = tree_parent(change->descriptor, top);
	_free_ char *disk = NULL;
	size_t from = 0;

	*ret_again = false;
	if (change->writer || !parent || parent->temporary != SNAPSHOT_TEMPORARY || parent->children != 1 ||
	    change_user(change, parent, &from))
		return 0;
	disk = strdup(change->path);
	if (!disk)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", change->path);
	change_end(change);
	*ret_again = true;
	return ploop_snapshot_merge(&(struct ploop_snapshot_merge){ .disk = disk }, err);
}

static int look_at_images(struct resize *resize, struct ploop_error *err)
{
	const char *operand = resize->change.path;
	const struct stack_request request = {
		.operands = &operand, .noperands = 1, .read_only = true, .unlocked = true, .outside = true
	};
	struct stack *stack;
	int r = stack_open(NULL, &request, &stack, err);

	if (r < 0)
		return r;
	resize->top = stack->levels[stack->nlevels - 1].geometry;
	resize->lower = 0;
	for (unsigned i = 0; i + 1 < stack->nlevels; i++)
		resize->lower = max_u64(resize->lower, stack->levels[i].geometry.size);
	stack_close(stack);
	return 0;
}

/* Nobody else may use a disk that is not running: readers of it neither, as what they read would change. */
static int check_unused(const struct change *change, struct ploop_error *err)
{
	size_t from = 0;
	const struct ploop_device *device = change_user(change, descriptor_top(change->descriptor), &from);

	if (!device)
		return 0;
	return error_set(err, -EBUSY, PLOOP_EXIT_BUSY, "%s is in use by %s, which reads it only; unmount that first",
			 change->path, device->device);
}

int resize_begin(struct resize *resize, const char *disk, struct ploop_error *err)
{
	bool again = true;
	int r = 0;

	while (r == 0 && again) {
		r = change_begin(&resize->change, disk, err);
		if (r == 0)
			r = finish_interrupted(&resize->change, &again, err);
	}
	if (r == 0)
		r = look_at_images(resize, err);
	if (r < 0 || resize->change.writer)
		return r;
	r = check_unused(&resize->change, err);
	if (r == 0 && resize->top.state == FORMAT_IN_USE) {
		r = change_recover_top(&resize->change, err);
		if (r == 0)
			r = look_at_images(resize, err);
	}
	return r;
}

int resize_tell(struct resize *resize, struct ploop_error *err)
{
	struct resize_disk disk = RESIZE_DISK_NONE;
	int r = resize_disk_peek(resize->change.path, &disk, err);

	if (r == 0)
		resize->result = (struct ploop_resized){
			.size = disk.size,
			.fs = disk.fs.type,
			.fs_size = fs_shape_size(&disk.fs),
			.disk_larger = disk.size > resize->target,
		};
	resize_disk_close(&disk);
	return r;
}

/* What the format of the top can be: its last sector, or its last cluster, has a number of 32 bits. */
static uint64_t images_maximum(const struct geometry *top)
{
	uint64_t most = top->version == 1 ? (uint64_t)UINT32_MAX * SECTOR : INT64_MAX;

	if (top->version == 2)
		most = UINT32_MAX / 2 * (uint64_t)top->cluster;
	return round_down(most, top->cluster);
}

uint64_t resize_maximum(const struct resize *resize, const struct resize_disk *disk, char *why, size_t size)
{
	uint64_t most = images_maximum(&resize->top);

	if (resize->top.version == 1)
		snprintf(why, size, "an image of version 1 has no more sectors");
	else
		snprintf(why, size, "an image has no more clusters");
	if (disk->fs.kind != FS_UNKNOWN && resize_disk_for(disk, disk->fs.limit) < most) {
		most = resize_disk_for(disk, round_down(disk->fs.limit, disk->cluster));
		snprintf(why, size, "%s with blocks of %u bytes does not become larger", disk->fs.type, disk->fs.block);
	}
	return most;
}

static int set_target(struct resize *resize, struct ploop_error *err)
{
	uint32_t cluster = resize->top.cluster;

	if (!checked_round_up(resize->what->size, cluster, &resize->target) || resize->target > INT64_MAX ||
	    resize->target <= SMALLEST_CLUSTERS * (uint64_t)cluster)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Unable to change image size to %" PRIu64 " sectors",
				 resize->what->size / SECTOR);
	return 0;
}

static int run(struct resize *resize, struct ploop_error *err)
{
	const struct change *change = &resize->change;
	int r = set_target(resize, err);

	if (r < 0)
		return r;
	if (change->writer && resize->what->flags & PLOOP_RESIZE_OFFLINE)
		return error_set(err, -EBUSY, PLOOP_EXIT_BUSY, "%s is in use as %s; unmount it first (`ploop umount -d %s`)",
				 change->path, change->writer->device, change->writer->device);
	if (change->writer)
		return resize_in_use(resize, err);
	return resize->target < resize->top.size ? resize_smaller(resize, err) : resize_larger(resize, err);
}

int ploop_resize(const struct ploop_resize *what, struct ploop_resized *ret, struct ploop_error *err)
{
	struct resize resize = { .what = what, .change = { .lock = -EBADF } };
	int r;

	log_inner_begin();
	r = resize_begin(&resize, what->disk, err);
	if (r == 0)
		r = run(&resize, err);
	change_end(&resize.change);
	log_inner_end();
	if (r == 0 && ret)
		*ret = resize.result;
	return r;
}
