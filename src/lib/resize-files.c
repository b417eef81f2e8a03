/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* resize-files.c - the images of a disk that nobody uses become those of a larger or a smaller one: a device in this process. */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "device/device.h"
#include "io/loop.h"
#include "lib/disk.h"
#include "lib/resize.h"

#define DEPTH 64

struct waiting {
	struct loop *loop;
	bool done;
	int result;
};

static void work_done(void *data, int result)
{
	struct waiting *waiting = data;

	waiting->done = true;
	waiting->result = result;
	loop_stop(waiting->loop);
}

static int wait_for(struct waiting *waiting)
{
	int r = 0;

	while (!waiting->done && !r)
		r = loop_run(waiting->loop);
	return r < 0 ? r : waiting->result;
}

static int resize_device(struct ploop_disk *disk, uint64_t size, struct ploop_error *err)
{
	struct waiting waiting = { .loop = disk->loop };
	int r = device_resize(disk->device, size, work_done, &waiting, err);

	if (r < 0)
		return r;
	r = wait_for(&waiting);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_WRITE, "its size cannot be changed") : 0;
}

/* What is in the way of a shorter file moves. That the host has no room for it just now is no failure of a resize. */
static void shorten_file(struct ploop_disk *disk)
{
	struct waiting waiting = { .loop = disk->loop };
	const struct device_compact_config config = {
		.level = device_levels(disk->device) - 1, .done = work_done, .data = &waiting
	};
	struct ploop_error err;
	int r = device_compact(disk->device, &config, &err);

	if (r == 0) {
		r = wait_for(&waiting);
		if (r < 0)
			error_sys(&err, r, PLOOP_EXIT_RELOC, "moving clusters");
	}
	if (r < 0)
		log_warning("%s: the disk is smaller, its file not yet: `ploop compact` tries that again", err.text);
}

int resize_files(struct resize *resize, uint64_t size, struct ploop_error *err)
{
	const char *path = resize->change.path;
	const struct ploop_files files = { .paths = &path, .npaths = 1, .outside = true };
	const struct disk_config config = { .files = &files, .write = true, .depth = DEPTH };
	struct ploop_error other;
	struct ploop_disk *disk;
	int closed, r = disk_open(&config, &disk, err);

	if (r < 0)
		return r;
	change_pause(&resize->change);
	if (size != device_size(disk->device))
		r = resize_device(disk, size, err);
	if (r == 0 && size <= resize->top.size)
		shorten_file(disk);
	closed = disk_close(disk, r < 0 ? &other : err);
	if (r == 0)
		r = closed;
	if (r == 0)
		resize->top.size = size;
	return r < 0 ? r : change_resume(&resize->change, err);
}

