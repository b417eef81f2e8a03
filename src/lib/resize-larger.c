/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * resize-larger.c - a disk becomes larger, or its file system fills it, whether somebody uses it meanwhile or not.
 *
 * Order of writes. After each the disk is one that opens and mounts, as each only makes room for the next:
 *  1. What could be refused is looked at.
 *  2. The device grows (device/resize.c), and with it the image of the top.
 *  3. The partition table, both copies (table.c), then the kernel's idea of it.
 *  4. The file system, by the kernel, which journals it; XFS is mounted for it when it is not. For an ext file system that is not
 *     in use 3 and 4 are done by resize2fs, all of it or nothing (resize-overlay.c).
 *  5. The size in the descriptor, which is a hint.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/log.h"
#include "lib/freeze.h"
#include "lib/fs-grow.h"
#include "lib/resize.h"
#include "lib/size.h"

/* What growing writes to the host, roughly: some blocks for every group of an ext file system, and its journal. */
#define HOST_ROOM (UINT64_C(16) << 20)
#define HOST_PART 8192 /* one byte for so many bytes more */

/* A file system with nothing behind it grows; of what is not known only the disk does, if it is alone there. */
static int check_kind(const struct resize_disk *disk, struct ploop_error *err)
{
	if (disk->fs.kind != FS_UNKNOWN || disk->table.npartitions < 2)
		return 0;
	return error_set(err, -EMEDIUMTYPE, PLOOP_EXIT_PARAM,
			 "%s: partition %u lies last, and holds no file system that can be resized (ext4, xfs); `ploop grow` "
			 "makes only the disk larger",
			 disk->name, disk->table.last.number);
}

static int check_maximum(const struct resize *resize, const struct resize_disk *disk, struct ploop_error *err)
{
	char why[256];
	uint64_t most = resize_maximum(resize, disk, why, sizeof(why));

	if (resize->target <= most)
		return 0;
	return error_set(err, -EFBIG, PLOOP_EXIT_PARAM,
			 "An incorrect block device size is specified: %" PRIu64 " sectors. The maximum allowed size is %" PRIu64
			 " sectors: %s",
			 resize->target / SECTOR, most / SECTOR, why);
}

/* When the host is full a device waits for room, and so would whoever resizes it. */
static int check_host(const struct resize *resize, const struct resize_disk *disk, struct ploop_error *err)
{
	uint64_t more = resize->target > disk->size ? resize->target - disk->size : 0;
	uint64_t needed = HOST_ROOM + more / HOST_PART, there;
	struct statvfs fs;

	if (statvfs(resize->change.dir->path, &fs) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_FSTAT, "%s", resize->change.dir->path);
	if (!checked_mul(fs.f_bavail, fs.f_frsize, &there) || there >= needed)
		return 0;
	return error_set(err, -ENOSPC, PLOOP_EXIT_WRITE,
			 "%s: the host has %" PRIu64 " MiB left here, and growing takes up to %" PRIu64 " MiB",
			 resize->change.dir->path, there >> 20, needed >> 20);
}

static int grow_content(struct resize *resize, struct resize_disk *disk, struct ploop_error *err)
{
	uint64_t room = resize_disk_room(disk, resize->target), now = disk->end - disk->start;
	int r = resize_stage(resize, "partition", err);

	/* A partition that is larger already stays so: somebody uses it. */
	if (r == 0 && room >= now)
		r = resize_disk_partition(disk, resize->target, disk->size, err);
	if (r == 0)
		r = resize_stage(resize, "file system", err);
	return r < 0 ? r : resize_disk_grow_fs(disk, min_u64(room, disk->end - disk->start), err);
}

/* Steps 3 to 5, of a disk that runs and is large enough. */
static int fill_disk(struct resize *resize, struct resize_disk *disk, struct ploop_error *err)
{
	int r = 0;

	if (disk->fs.kind != FS_UNKNOWN)
		r = grow_content(resize, disk, err);
	else
		log_warning("%s holds no file system that is known (ext4, xfs): only the disk has another size now", disk->name);
	if (r == 0)
		r = size_set_descriptor(&resize->change, disk->size, err);
	if (r < 0)
		return r;
	resize->result = (struct ploop_resized){
		.size = disk->size,
		.fs = disk->fs.type,
		.fs_size = fs_shape_size(&disk->fs),
		.disk_larger = disk->size > resize->target,
	};
	return 0;
}

/* Step 1. */
static int check(const struct resize *resize, const struct resize_disk *disk, struct ploop_error *err)
{
	int r = check_kind(disk, err);

	if (r == 0)
		r = check_maximum(resize, disk, err);
	return r < 0 ? r : check_host(resize, disk, err);
}

/* ---- In use ---- */

/* Whoever froze it may wait for us, or be gone: growing would wait for him in a way that cannot be interrupted. */
static int check_frozen(const struct resize *resize, struct ploop_error *err)
{
	const struct ploop_device *device = resize->change.writer;
	struct freeze *freeze;
	int r = freeze_start(device, resize->change.dir->path, &freeze, err);

	if (r == 0)
		freeze_end(freeze);
	if (r == -EBUSY)
		return error_set(err, r, PLOOP_EXIT_BUSY, "%s: its file system is frozen; thaw it (fsfreeze -u) and try again",
				 device->device);
	return r == -EOPNOTSUPP ? 0 : r;
}

/* Opens the file system as well: what it says itself of its size is what counts. */
static int look_in_use(struct resize *resize, struct resize_disk *disk, struct ploop_error *err)
{
	const struct ploop_device *device = resize->change.writer;
	int r = resize_disk_open(device->name, device->node, device->cluster, disk, err);

	if (r == 0 && disk->fs.kind != FS_UNKNOWN) {
		r = check_frozen(resize, err);
		if (r == 0)
			r = resize_disk_open_fs(disk, err);
		if (r == 0 && resize_disk_room(disk, resize->target) > fs_shape_size(&disk->fs))
			r = fs_may_grow(disk->partition, &disk->fs, err);
	}
	return r < 0 ? r : check(resize, disk, err);
}

/* Step 2. */
static int grow_device(struct resize *resize, struct resize_disk *disk, struct ploop_error *err)
{
	uint64_t size;
	int r;

	if (resize->target <= disk->size)
		return 0;
	r = resize_stage(resize, "disk", err);
	if (r == 0)
		r = size_set_device(disk->name, resize->target, &size, err);
	return r < 0 ? r : resize_disk_look(disk, err);
}

int resize_in_use(struct resize *resize, struct ploop_error *err)
{
	struct resize_disk disk = RESIZE_DISK_NONE;
	uint64_t balloon = 0;
	int r = look_in_use(resize, &disk, err);

	if (r == 0)
		r = resize_plan_balloon(resize, &disk, &balloon, err);
	if (r == 0)
		r = grow_device(resize, &disk, err);
	if (r == 0 && !balloon)
		r = fill_disk(resize, &disk, err);
	if (r == 0 && disk.fs.kind != FS_UNKNOWN)
		r = resize_set_balloon(resize, &disk, balloon, err);
	resize_disk_close(&disk);
	return r;
}

/* ---- Not in use ---- */

static int check_files(struct resize *resize, bool *ret_ext, struct ploop_error *err)
{
	struct resize_disk disk = RESIZE_DISK_NONE;
	int r = resize_disk_peek(resize->change.path, &disk, err);

	if (r == 0)
		r = check(resize, &disk, err);
	*ret_ext = disk.fs.kind == FS_EXT;
	resize_disk_close(&disk);
	return r;
}

/* The kernel could do it to a mounted one, if it lets us: resize2fs needs no leave. */
static int grow_ext(struct resize *resize, struct resize_disk *disk, struct ploop_error *err)
{
	uint64_t room = resize_disk_room(disk, resize->target);
	int r = resize_disk_partition(disk, resize->target, disk->size, err);

	if (r == 0 && fs_shape_size(&disk->fs) < room)
		r = resize_ext(resize, disk, room, err);
	return r;
}

static int fill_unused(struct resize *resize, struct ploop_error *err)
{
	struct resize_run run = RESIZE_RUN_NONE;
	struct ploop_error other;
	int ended, r = resize_run_start(&resize->change, NULL, &run, err);

	if (r == 0 && run.disk.fs.kind != FS_UNKNOWN)
		r = resize_deflate(&run.disk, err);
	if (r == 0)
		r = fill_disk(resize, &run.disk, err);
	ended = resize_run_end(&run, r < 0 ? &other : err);
	return r < 0 ? r : ended;
}

int resize_larger(struct resize *resize, struct ploop_error *err)
{
	bool ext = false;
	int r = check_files(resize, &ext, err);

	if (r == 0 && resize->target > resize->top.size) {
		r = resize_stage(resize, "disk", err);
		if (r == 0)
			r = resize_files(resize, resize->target, err);
	}
	if (r < 0)
		return r;
	if (!ext)
		return fill_unused(resize, err);
	r = resize_in_overlay(resize, grow_ext, err);
	if (r == 0)
		r = size_set_descriptor(&resize->change, resize->top.size, err);
	return r < 0 ? r : resize_tell(resize, err);
}
