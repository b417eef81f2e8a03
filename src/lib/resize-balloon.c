/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * resize-balloon.c - a file system that is in use does not become smaller, so a balloon takes what is too much away from its
 * users. The disk, its partition and what the file system says of itself stay as they are.
 */
#include <errno.h>
#include <inttypes.h>
#include <sys/statvfs.h>

#include "base/checked.h"
#include "base/error.h"
#include "lib/balloon-file.h"
#include "lib/inside.h"
#include "lib/resize.h"

#define SLACK (UINT64_C(1) << 20) /* what the file system may need for itself to hold a balloon */

/* As the functions of a balloon want it. `disk` keeps what is in it. */
static struct inside inside_of(struct resize_disk *disk)
{
	struct inside inside = INSIDE_NONE;

	inside.root = disk->root;
	inside.entry.device.device = disk->name; /* for messages */
	return inside;
}

/* A balloon that was blown up while the disk was in use has nothing to hold back any more. */
int resize_deflate(struct resize_disk *disk, struct ploop_error *err)
{
	struct balloon_file balloon = BALLOON_FILE_NONE;
	int r = resize_disk_open_fs(disk, err);
	struct inside inside = inside_of(disk);

	if (r == 0)
		r = balloon_file_open(&inside, &balloon, err);
	if (r == 0 && (balloon.size || balloon.beyond)) {
		balloon_file_close(&balloon);
		r = balloon_file_lock(&inside, &balloon, err);
		if (r == 0)
			r = balloon_file_resize(&inside, &balloon, 0, err);
	}
	balloon_file_close(&balloon);
	return r;
}

static int balloon_now(struct resize_disk *disk, uint64_t *ret, struct ploop_error *err)
{
	struct balloon_file balloon = BALLOON_FILE_NONE;
	struct inside inside = inside_of(disk);
	int r = balloon_file_open(&inside, &balloon, err);

	*ret = balloon.size;
	balloon_file_close(&balloon);
	return r;
}

int resize_minimum_in_use(struct resize_disk *disk, uint64_t *ret, struct ploop_error *err)
{
	uint64_t now, room, most, size = fs_shape_size(&disk->fs);
	struct statvfs fs;
	int r = balloon_now(disk, &now, err);

	if (r < 0)
		return r;
	if (fstatvfs(disk->root, &fs) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_FSTAT, "%s", disk->partition);
	room = fs.f_bavail * fs.f_frsize;
	most = now + (room > SLACK ? room - SLACK : 0);
	*ret = resize_disk_for(disk, most < size ? size - most : 0);
	return 0;
}

int resize_plan_balloon(const struct resize *resize, struct resize_disk *disk, uint64_t *ret, struct ploop_error *err)
{
	uint64_t room = resize_disk_room(disk, resize->target), size = fs_shape_size(&disk->fs), minimum;
	int r;

	*ret = 0;
	if (disk->fs.kind == FS_UNKNOWN && resize->target < disk->size)
		return resize_too_small(resize, disk->size, err);
	if (disk->fs.kind == FS_UNKNOWN || size <= room)
		return 0;
	r = resize_minimum_in_use(disk, &minimum, err);
	if (r == 0 && resize->target < minimum)
		r = resize_too_small(resize, minimum, err);
	*ret = size - room;
	return r;
}

int resize_set_balloon(struct resize *resize, struct resize_disk *disk, uint64_t size, struct ploop_error *err)
{
	const struct ploop_device *device = resize->change.writer;
	const struct ploop_balloon balloon = {
		.which = { .device = device->device },
		.automount = true,
		.progress = resize->what->progress,
		.progress_data = resize->what->progress_data,
	};
	uint64_t now;
	int r = balloon_now(disk, &now, err);

	if (r == 0 && now != size) {
		if (disk->has_table && disk->table.last.number != 1)
			return error_set(err, -EMEDIUMTYPE, PLOOP_EXIT_PARAM,
					 "%s: a balloon is made in partition 1, and its last one is %u; unmount the disk to resize it",
					 device->device, disk->table.last.number);
		r = ploop_balloon_change(&balloon, size, NULL, err);
	}
	if (r < 0)
		return r;
	resize->result = (struct ploop_resized){
		.size = disk->size,
		.fs = disk->fs.type,
		.fs_size = fs_shape_size(&disk->fs) - size,
		.disk_larger = disk->size > resize->target,
		.ballooned = size,
	};
	return 0;
}
