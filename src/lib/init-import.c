/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * init-import.c - writes what a scratch file holds into a new image, through the engine.
 *
 * The file is read piece by piece where it has data; runs of blocks that are not all zero become write requests, of which
 * IMPORT_SLOTS are in flight. Everything else of the disk stays unmapped.
 *
 * The loop is run until something has happened, never for one turn: what happens may be a task at the start of a turn, which
 * then would wait for ever.
 */
#include "lib/init-import.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/fd.h"
#include "device/device.h"
#include "io/io.h"
#include "io/loop.h"
#include "lib/disk.h"

#define IMPORT_SLOTS 16u
#define IMPORT_DEPTH 64u /* operations: a write into a new cluster may be several */
#define IMPORT_PIECE (256u * 1024)
#define IMPORT_BLOCK 4096u               /* zeros are looked for in blocks of this size */
#define IMPORT_PUNCH (64u * 1024 * 1024) /* room is given back in steps of this size */
#define STAGE "image"

struct import_slot {
	struct device_request request;
	struct import *import;
	void *buffer;
	bool busy;
};

struct import {
	struct ploop_disk *disk;
	const char *path;
	struct import_slot slots[IMPORT_SLOTS];
	unsigned busy;
	int result; /* the first error */

	/* The file that is read. */
	int fd;
	uint64_t size, offset; /* offset: where it goes on the disk */
	uint64_t at, punched;
};

static bool is_zero(const char *data, size_t len)
{
	return !*data && !memcmp(data, data + 1, len - 1);
}

static size_t block_at(size_t at, size_t len)
{
	return min_u64(IMPORT_BLOCK, len - at);
}

/* The first run of blocks with content in `len` bytes. False when there is none. */
static bool find_run(const char *data, size_t len, size_t *ret_start, size_t *ret_end)
{
	size_t start = 0, end;

	while (start < len && is_zero(data + start, block_at(start, len)))
		start += block_at(start, len);
	for (end = start; end < len && !is_zero(data + end, block_at(end, len)); end += block_at(end, len))
		;
	*ret_start = start;
	*ret_end = end;
	return start < end;
}

/* Moves to the next data of the file. False at its end. A file system that does not know is all data. */
static bool skip_hole(struct import *import)
{
	off_t data = lseek(import->fd, (off_t)import->at, SEEK_DATA);

	if (data >= 0)
		import->at = (uint64_t)data;
	else if (errno == ENXIO)
		import->at = import->size;
	return import->at < import->size;
}

/* Reads the next run into `buffer`. 1 when there is one, 0 at the end of the file. */
static int next_run(struct import *import, char *buffer, uint64_t *ret_offset, size_t *ret_start, size_t *ret_len)
{
	while (skip_hole(import)) {
		size_t len = min_u64(IMPORT_PIECE, import->size - import->at), end;
		ssize_t got = fd_pread(import->fd, buffer, len, import->at);

		if (got != (ssize_t)len)
			return got < 0 ? (int)got : -EIO;
		if (find_run(buffer, len, ret_start, &end)) {
			*ret_offset = import->offset + import->at + *ret_start;
			*ret_len = end - *ret_start;
			import->at += end;
			return 1;
		}
		import->at += len;
	}
	return 0;
}

static void write_done(struct device_request *request, int result)
{
	struct import_slot *slot = container_of(request, struct import_slot, request);

	slot->busy = false;
	slot->import->busy--;
	if (result < 0 && !slot->import->result)
		slot->import->result = result;
	loop_stop(slot->import->disk->loop);
}

static int start_write(struct import *import, struct import_slot *slot)
{
	uint64_t offset = 0;
	size_t start = 0, len = 0;
	int r = next_run(import, slot->buffer, &offset, &start, &len);

	if (r <= 0)
		return r;
	slot->request = (struct device_request){
		.kind = DEVICE_WRITE,
		.offset = offset,
		.length = len,
		.buffer = (char *)slot->buffer + start,
		.done = write_done,
	};
	slot->busy = true;
	import->busy++;
	device_submit(import->disk->device, &slot->request);
	return 1;
}

static int wait_for_all(struct import *import)
{
	while (import->busy) {
		int r = loop_run(import->disk->loop);

		if (r < 0)
			return r;
	}
	return import->result;
}

/* What was read is in the buffers or on the disk; the scratch file needs it no more. Not all file systems can. */
static void punch(struct import *import, uint64_t least)
{
	if (import->at - import->punched < least)
		return;
	(void)!fallocate(import->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)import->punched,
			 (off_t)(import->at - import->punched));
	import->punched = import->at;
}

/* Fills the free slots. 1 while there is more to read. */
static int fill_slots(struct import *import)
{
	for (unsigned i = 0; i < IMPORT_SLOTS; i++) {
		int r;

		if (import->slots[i].busy)
			continue;
		r = start_write(import, &import->slots[i]);
		if (r <= 0)
			return r;
	}
	return 1;
}

static int copy(struct import *import, ploop_progress_fn progress, void *data)
{
	int more = 1;

	while (more && !import->result) {
		more = fill_slots(import);
		if (more < 0)
			break;
		punch(import, IMPORT_PUNCH);
		if (progress && progress(data, STAGE, import->at, import->size)) {
			more = -ECANCELED;
			break;
		}
		if (import->busy)
			more = loop_run(import->disk->loop) < 0 ? -EIO : more;
		if (more < 0)
			break;
	}
	if (more < 0 && !import->result)
		import->result = more;
	return wait_for_all(import);
}

int import_file(struct import *import, int fd, uint64_t offset, ploop_progress_fn progress, void *data,
		struct ploop_error *err)
{
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_FSTAT, "%s: scratch file", import->path);
	import->fd = fd;
	import->size = (uint64_t)st.st_size;
	import->offset = offset;
	import->at = import->punched = 0;
	r = copy(import, progress, data);
	if (r == -ECANCELED)
		return error_set(err, r, PLOOP_EXIT_ABORT, "%s: cancelled", import->path);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_WRITE, "%s: cannot be written", import->path);
	punch(import, 0);
	return 0;
}

static int open_slots(struct import *import, struct ploop_error *err)
{
	for (unsigned i = 0; i < IMPORT_SLOTS; i++) {
		import->slots[i].import = import;
		import->slots[i].buffer = io_buffer_new(IMPORT_PIECE);
		if (!import->slots[i].buffer)
			return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", import->path);
	}
	return 0;
}

int import_open(const char *path, const char *format, uint32_t cluster, struct import **ret, struct ploop_error *err)
{
	const struct ploop_files files = { .paths = &path, .npaths = 1, .format = format, .cluster = cluster };
	const struct disk_config config = { .files = &files, .write = true, .depth = IMPORT_DEPTH };
	struct import *import = calloc(1, sizeof(*import));
	int r;

	if (!import)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", path);
	import->path = path;
	r = open_slots(import, err);
	if (!r)
		r = disk_open(&config, &import->disk, err);
	if (r < 0) {
		import_close(import, NULL);
		return r;
	}
	*ret = import;
	return 0;
}

int import_close(struct import *import, struct ploop_error *err)
{
	int r = disk_close(import->disk, err);

	for (unsigned i = 0; i < IMPORT_SLOTS; i++)
		io_buffer_free(import->slots[i].buffer, IMPORT_PIECE);
	free(import);
	return r;
}
