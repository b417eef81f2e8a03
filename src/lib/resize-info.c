/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * resize-info.c - how small and how large a disk can become. The images and the table are looked at as they lie; the smallest size of
 * an ext file system is asked of the tool that would make it so, on a disk whose writes are thrown away.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/log.h"
#include "lib/resize.h"

static void fill(const struct resize *resize, const struct resize_disk *disk, struct ploop_resize_info *ret)
{
	const struct ploop_device *device = resize->change.writer;
	const struct fs_shape *fs = &disk->fs;

	*ret = (struct ploop_resize_info){
		.size = disk->size,
		.cluster = disk->cluster,
		.partition = disk->table.last.number,
		.start = disk->start,
		.end = disk->end,
		.fs = fs->type,
		.fs_size = fs_shape_size(fs),
		.fs_block = fs->block,
		.inodes = fs->inodes,
	};
	if (device)
		snprintf(ret->device, sizeof(ret->device), "%s", device->device);
	if (fs->kind == FS_EXT)
		ret->bytes_per_inode = (uint64_t)fs->group_blocks * fs->block / fs->group_inodes;
	ret->maximum = resize_maximum(resize, disk, ret->maximum_why, sizeof(ret->maximum_why));
}

static void set_minimum(struct ploop_resize_info *ret, uint64_t minimum, const char *why)
{
	ret->minimum_known = true;
	ret->minimum = minimum;
	snprintf(ret->minimum_why, sizeof(ret->minimum_why), "%s", why);
}

/* What needs no look inside. True when that is the answer. */
static bool minimum_is_plain(const struct resize *resize, const struct resize_disk *disk, struct ploop_resize_info *ret)
{
	if (disk->fs.kind == FS_UNKNOWN)
		set_minimum(ret, disk->size, "nothing is known of what is on it, which may need all of it");
	else if (disk->fs.kind == FS_XFS && !resize->change.writer)
		set_minimum(ret, resize_disk_for(disk, fs_shape_size(&disk->fs)), "XFS does not become smaller");
	else if (geteuid() != 0)
		snprintf(ret->minimum_why, sizeof(ret->minimum_why), "only root can find out");
	else
		return false;
	return true;
}

/* In use. A file system that is mounted read-only stays as large as it is. */
static int look_at_device(struct resize *resize, struct ploop_resize_info *ret, struct ploop_error *err)
{
	const struct ploop_device *device = resize->change.writer;
	struct resize_disk disk = RESIZE_DISK_NONE;
	uint64_t minimum;
	int r = resize_disk_open(device->name, device->node, device->cluster, &disk, err), opened = -ENODATA;

	if (r == 0 && disk.fs.kind != FS_UNKNOWN)
		opened = resize_disk_open_fs(&disk, err);
	if (opened < 0 && opened != -ENODATA && opened != -EROFS)
		r = opened;
	if (r == 0)
		fill(resize, &disk, ret);
	if (r == 0 && opened == 0) {
		r = resize_minimum_in_use(&disk, &minimum, err);
		if (r == 0)
			set_minimum(ret, minimum, "it is in use, and so much is in its file system; a balloon takes the rest");
	} else if (r == 0 && !minimum_is_plain(resize, &disk, ret)) {
		set_minimum(ret, disk.size, "it is in use, and mounted read-only");
	}
	resize_disk_close(&disk);
	return r;
}

/* Not in use. Its answers hold for the file system as it is when its journal is replayed. */
static int look_inside(struct resize *resize, struct ploop_resize_info *ret, struct ploop_error *err)
{
	struct resize_run run = RESIZE_RUN_NONE;
	struct ploop_error other;
	char *name = NULL;
	uint64_t minimum;
	int r = resize_overlay_start(resize, &name, &run, err);

	if (r == 0)
		r = resize_minimum(&run.disk, &minimum, err);
	if (r == 0) {
		fill(resize, &run.disk, ret);
		set_minimum(ret, minimum, "the file system holds so much");
	}
	(void)resize_run_end(&run, &other);
	free(name);
	return r;
}

static int look_at_files(struct resize *resize, struct ploop_resize_info *ret, struct ploop_error *err)
{
	struct resize_disk disk = RESIZE_DISK_NONE;
	bool plain = false;
	int r = resize_disk_peek(resize->change.path, &disk, err);

	if (r == 0) {
		fill(resize, &disk, ret);
		plain = minimum_is_plain(resize, &disk, ret);
	}
	resize_disk_close(&disk);
	return r < 0 || plain ? r : look_inside(resize, ret, err);
}

int ploop_resize_info(const char *disk, struct ploop_resize_info *ret, struct ploop_error *err)
{
	struct resize resize = { .change = { .lock = -EBADF } };
	struct ploop_resize_info info;
	int r;

	log_inner_begin();
	r = resize_begin(&resize, disk, err);
	if (r == 0)
		r = resize.change.writer ? look_at_device(&resize, &info, err) : look_at_files(&resize, &info, err);
	change_end(&resize.change);
	log_inner_end();
	if (r == 0)
		*ret = info;
	return r;
}
