/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * resize-overlay.c - what tools do to a file system, all of it or nothing.
 *
 * The tools that change the size of a file system leave a ruin when they are interrupted. So they work on a disk that has an empty
 * delta on top, and what they write is kept or thrown away as a whole. After each step the disk is one that opens and mounts:
 *  1. The journal names the delta, then it is made (image/journal.h). Whoever comes after a crash removes it.
 *  2. What is to be done is done, in the delta.
 *  3. The delta is durable and closed. Then the descriptor names it as the top, and what was the top as a temporary snapshot:
 *     from this one write on all of it is done.
 *  4. The two are merged, as any snapshots. A crash leaves the snapshot; the next resize merges it first.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "lib/fs-resize.h"
#include "lib/resize.h"

#define FREE_TRIES 200 /* times FREE_PAUSE_NS: how long a file system that was unmounted takes to be gone */
#define FREE_PAUSE_NS 50000000L

/* A file system is gone some moments after its last file was closed. */
static int wait_until_free(const char *partition, struct ploop_error *err)
{
	const struct timespec pause = { .tv_nsec = FREE_PAUSE_NS };

	for (int i = 0; i < FREE_TRIES; i++) {
		_close_ int fd = open(partition, O_RDONLY | O_EXCL | O_CLOEXEC);

		if (fd >= 0)
			return 0;
		if (errno != EBUSY)
			return error_sys(err, -errno, PLOOP_EXIT_DEVICE, "%s", partition);
		nanosleep(&pause, NULL);
	}
	return error_set(err, -EBUSY, PLOOP_EXIT_BUSY, "%s is in use by somebody", partition);
}

/* For tools that want it for themselves: without a balloon, in good order, mounted by nobody. */
static int make_ready(struct resize_disk *disk, struct ploop_error *err)
{
	int r = fs_check_ext(disk->partition, FS_CHECK_PREEN, err);

	if (r == 0)
		r = resize_deflate(disk, err);
	cleanup_close(&disk->root);
	disk->root = -EBADF;
	if (r == 0)
		r = wait_until_free(disk->partition, err);
	return r < 0 ? r : resize_disk_look(disk, err);
}

int resize_overlay_start(struct resize *resize, char **ret_name, struct resize_run *run, struct ploop_error *err)
{
	struct change *change = &resize->change;
	char *name = change_new_name(change);
	int r;

	*ret_name = name;
	if (!name)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", change->path);
	if (dir_exists(change->dir, name))
		return error_set(err, -EEXIST, PLOOP_EXIT_PARAM, "Can't create %s/%s: File exists", change->dir->path, name);
	r = change_journal(change, "resize", (const char *const *)ret_name, 1, err);
	if (r == 0)
		r = change_new_delta(change->dir, name, &resize->top, err);
	if (r == 0)
		r = resize_run_start(change, name, run, err);
	if (r < 0)
		return r;
	change_pause(change);
	return run->disk.fs.kind == FS_EXT ? make_ready(&run->disk, err) : 0;
}

int resize_ext(struct resize *resize, struct resize_disk *disk, uint64_t size, struct ploop_error *err)
{
	int r = resize_stage(resize, "check", err);

	if (r == 0)
		r = fs_check_ext(disk->partition, FS_CHECK_FORCE, err);
	if (r == 0)
		r = resize_stage(resize, "file system", err);
	if (r == 0)
		r = fs_resize(disk->partition, size, err);
	if (r == 0)
		r = resize_stage(resize, "check", err);
	return r < 0 ? r : fs_check_ext(disk->partition, FS_CHECK_ONLY, err);
}

/* ---- Kept ---- */

static int edit(struct descriptor *d, const char *delta)
{
	struct guid top, old;
	int r;

	guid_parse(GUID_TOP, &top);
	guid_generate(&old);
	r = descriptor_rename(d, &d->top, &old);
	if (r == 0)
		r = descriptor_add(d, &top, &old, delta);
	if (r == 0)
		r = descriptor_set_top(d, &top);
	return r < 0 ? r : descriptor_set_temporary(d, &old, SNAPSHOT_TEMPORARY);
}

static int keep(struct resize *resize, const char *delta, struct ploop_error *err)
{
	int r = edit(resize->change.descriptor, delta);

	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_DISKDESCR, "%s cannot name %s", resize->change.path, delta);
	return change_commit(&resize->change, err);
}

/* Gives the lock of the disk back meanwhile. */
static int merge(struct resize *resize, struct ploop_error *err)
{
	_free_ char *disk = strdup(resize->change.path);
	const struct ploop_snapshot_merge merge = {
		.disk = disk, .progress = resize->what->progress, .progress_data = resize->what->progress_data
	};
	int r;

	if (!disk)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", resize->change.path);
	change_end(&resize->change);
	r = ploop_snapshot_merge(&merge, err);
	if (r == 0)
		r = resize_begin(resize, disk, err);
	if (r == 0 && resize->change.writer)
		r = error_set(err, -EBUSY, PLOOP_EXIT_BUSY,
			      "%s was mounted as %s meanwhile: its file system has the size that was asked for, the disk will have "
			      "it when it is resized once more",
			      disk, resize->change.writer->device);
	return r;
}

int resize_in_overlay(struct resize *resize, resize_content_fn content, struct ploop_error *err)
{
	struct resize_run run = RESIZE_RUN_NONE;
	struct ploop_error other;
	_free_ char *name = NULL;
	int ended, r = resize_overlay_start(resize, &name, &run, err);

	if (r == 0)
		r = content(resize, &run.disk, err);
	if (r == 0 && fsync(run.disk.fd) < 0)
		r = error_sys(err, -errno, PLOOP_EXIT_FSYNC, "%s", run.disk.name);
	ended = resize_run_end(&run, r < 0 ? &other : err);
	if (r == 0)
		r = ended;
	if (r == 0)
		r = change_resume(&resize->change, err);
	if (r == 0)
		r = keep(resize, name, err);
	return r < 0 ? r : merge(resize, err);
}
