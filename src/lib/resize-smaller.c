/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * resize-smaller.c - a disk that nobody uses becomes smaller. After each step it is one that opens and mounts:
 *  1. File system, then partition table become smaller, all of it or nothing (resize-overlay.c).
 *  2. The device becomes smaller, as what is on it ends before that (device/resize.c). Then its file (device/compact.c).
 *  3. The size in the descriptor, which is a hint.
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/log.h"
#include "lib/fs-resize.h"
#include "lib/resize.h"
#include "lib/size.h"

#define SMALLEST_CLUSTERS 5

/* The device is never smaller than the images below the top. */
static uint64_t wanted_size(const struct resize *resize)
{
	return max_u64(resize->target, resize->lower);
}

int resize_minimum(const struct resize_disk *disk, uint64_t *ret, struct ploop_error *err)
{
	uint64_t blocks, bytes;
	int r = fs_minimum(disk->partition, &blocks, err);

	if (r < 0)
		return r;
	if (!checked_mul(blocks, disk->fs.block, &bytes) || bytes > INT64_MAX / 2)
		return error_set(err, -EIO, PLOOP_EXIT_RESIZE_FS, "%s: resize2fs says nonsense", disk->partition);
	*ret = max_u64(resize_disk_for(disk, bytes), SMALLEST_CLUSTERS * (uint64_t)disk->cluster);
	return 0;
}

static int shrink_fs(struct resize *resize, struct resize_disk *disk, struct ploop_error *err)
{
	uint64_t room = resize_disk_room(disk, resize->target), minimum;
	int r;

	if (fs_shape_size(&disk->fs) <= room)
		return 0;
	r = resize_minimum(disk, &minimum, err);
	if (r == 0 && resize->target < minimum)
		r = resize_too_small(resize, minimum, err);
	return r < 0 ? r : resize_ext(resize, disk, room, err);
}

/* Where the device keeps its size, what lies behind the partition is given back all the same. */
static void discard_rest(const struct resize_disk *disk)
{
	uint64_t last = disk->table.sectors * TABLE_SECTOR - disk->cluster;
	uint64_t range[2] = { disk->end, last - disk->end };

	if (disk->has_table && last > disk->end)
		(void)ioctl(disk->fd, BLKDISCARD, range);
}

static int shrink_content(struct resize *resize, struct resize_disk *disk, struct ploop_error *err)
{
	uint64_t size = wanted_size(resize);
	int r = shrink_fs(resize, disk, err);

	if (r == 0)
		r = resize_disk_look(disk, err);
	if (r == 0)
		r = resize_disk_partition(disk, resize->target, size, err);
	if (r == 0 && size > resize->target)
		discard_rest(disk);
	return r;
}

/* Is the content as small as it shall be already? What a journal holds would tell otherwise, so that counts as no. */
static int look(struct resize *resize, uint64_t size, bool *ret_fits, struct ploop_error *err)
{
	struct resize_disk disk = RESIZE_DISK_NONE;
	uint64_t room, used;
	int r = resize_disk_peek(resize->change.path, &disk, err);

	if (r == 0 && disk.fs.kind == FS_UNKNOWN)
		r = error_set(err, -EMEDIUMTYPE, PLOOP_EXIT_PARAM,
			      "Unable to change image size to %" PRIu64
			      " sectors: %s holds no file system that is known (ext4, xfs), which could tell what it needs",
			      resize->target / SECTOR, resize->change.path);
	if (r == 0) {
		used = fs_shape_size(&disk.fs);
		room = resize_disk_room(&disk, resize->target);
		if (disk.fs.kind == FS_XFS && used > room) /* it never becomes smaller */
			r = resize_too_small(resize, resize_disk_for(&disk, used), err);
		*ret_fits = used <= room && !disk.fs.recover && !disk.fs.errors &&
			    (!disk.has_table || (disk.end == table_partition_end(resize->target, disk.cluster) &&
						 disk.table.sectors * TABLE_SECTOR == size && !disk.table.damaged));
		resize->result.fs = disk.fs.type;
	}
	resize_disk_close(&disk);
	return r;
}

/* What is free inside goes from the images as well, not only what lies behind. No failure of a resize. */
static int trim(struct resize *resize, struct ploop_error *err)
{
	struct fstrim_range all = { .len = UINT64_MAX };
	struct resize_run run = RESIZE_RUN_NONE;
	struct ploop_error why;
	int r = resize_stage(resize, "trim", err);

	if (r < 0)
		return r;
	r = resize_run_start(&resize->change, NULL, &run, &why);
	if (r == 0 && run.disk.fs.kind != FS_UNKNOWN)
		r = resize_disk_open_fs(&run.disk, &why);
	if (r == 0 && run.disk.root >= 0 && ioctl(run.disk.root, FITRIM, &all) < 0)
		log_info("%s: what is free in its file system is not given back: %s", run.disk.name, strerror(errno));
	if (r < 0)
		log_warning("%s; what is free in its file system is not given back", why.text);
	return resize_run_end(&run, err);
}

int resize_smaller(struct resize *resize, struct ploop_error *err)
{
	uint64_t size = wanted_size(resize);
	bool fits = false;
	int r = look(resize, size, &fits, err);

	if (r == 0 && !fits)
		r = resize_in_overlay(resize, shrink_content, err);
	if (r == 0)
		r = trim(resize, err);
	if (r == 0)
		r = resize_stage(resize, "disk", err);
	if (r == 0)
		r = resize_files(resize, size, err);
	if (r == 0)
		r = size_set_descriptor(&resize->change, size, err);
	return r < 0 ? r : resize_tell(resize, err);
}
