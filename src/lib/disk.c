/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* disk.c - a disk opened in this process. The calls block: each turns the disk's own loop until its requests are done. */
#include "lib/disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "device/device.h"
#include "image/stack.h"
#include "io/loop.h"
#include "job/complete.h"

#define DISK_DEPTH 16
#define DISK_CHUNK (1u << 20) /* one request of a read */

/* The answer that is waited for. It stops the loop, wherever in a turn it comes. */
struct disk_answer {
	struct device_request request;
	struct loop *loop;
	bool done;
	int result;
};

static void disk_answer_set(struct disk_answer *answer, int result)
{
	answer->done = true;
	answer->result = result;
	loop_stop(answer->loop);
}

static int disk_wait(struct disk_answer *answer)
{
	int r = 0;

	while (!answer->done && !r)
		r = loop_run(answer->loop);
	return r < 0 ? r : answer->result;
}

static int disk_open_stack(struct ploop_disk *disk, const struct disk_config *config, struct ploop_error *err)
{
	const struct ploop_files *files = config->files;
	struct stack_request request = {
		.operands = files->paths,
		.noperands = files->npaths,
		.base_format = files->format,
		.cluster = files->cluster,
		.snapshot = files->snapshot,
		.read_only = !config->write,
		.outside = files->outside,
		.unlocked = files->in_use && !config->write,
	};

	if (files->io) {
		request.module = io_module_find(files->io);
		if (!request.module)
			return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "there is no I/O module %s; see ploop modules",
					 files->io);
	}
	return stack_open(disk->loop, &request, &disk->stack, err);
}

static int disk_open_device(struct ploop_disk *disk, struct ploop_error *err)
{
	struct device_config config = {
		.loop = disk->loop,
		.levels = disk->stack->levels,
		.nlevels = disk->stack->nlevels,
		.read_only = disk->stack->read_only,
		.on_full = DEVICE_FULL_ERROR,
	};

	return device_open(&config, &disk->device, err);
}

int disk_open(const struct disk_config *config, struct ploop_disk **ret, struct ploop_error *err)
{
	struct ploop_disk *disk = calloc(1, sizeof(*disk));
	int r;

	if (!disk)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "opening a disk");
	r = loop_new(config->loop, config->depth, &disk->loop, err);
	if (r < 0)
		goto fail;
	r = disk_open_stack(disk, config, err);
	if (r < 0)
		goto fail;
	if (!disk->stack->read_only)
		r = job_complete(disk->loop, disk->stack, err);
	if (!r)
		r = disk_open_device(disk, err);
	if (r < 0)
		goto fail;
	*ret = disk;
	return 0;
fail:
	disk_close(disk, NULL);
	return r;
}

static void disk_closed(void *data, int result)
{
	disk_answer_set(data, result);
}

int disk_close(struct ploop_disk *disk, struct ploop_error *err)
{
	struct disk_answer closing = { .loop = disk ? disk->loop : NULL };
	int r = 0;

	if (!disk)
		return 0;
	if (disk->device) {
		device_close(disk->device, disk_closed, &closing);
		r = disk_wait(&closing);
		if (r < 0)
			error_sys(err, r, PLOOP_EXIT_WRITE, "%s: closing the disk",
				  disk->stack->levels[disk->stack->nlevels - 1].file->path);
	}
	stack_close(disk->stack);
	if (disk->loop)
		loop_free(disk->loop);
	free(disk);
	return r;
}

int ploop_disk_open(const struct ploop_files *files, struct ploop_disk **ret, struct ploop_error *err)
{
	const struct disk_config config = { .files = files, .depth = DISK_DEPTH };

	return disk_open(&config, ret, err);
}

void ploop_disk_close(struct ploop_disk *disk)
{
	(void)disk_close(disk, NULL);
}

uint64_t ploop_disk_size(const struct ploop_disk *disk)
{
	return device_size(disk->device);
}

uint32_t ploop_disk_cluster(const struct ploop_disk *disk)
{
	return device_cluster(disk->device);
}

unsigned ploop_disk_levels(const struct ploop_disk *disk)
{
	return disk->stack->nlevels;
}

int ploop_disk_level(struct ploop_disk *disk, unsigned level, struct ploop_level *ret, struct ploop_error *err)
{
	const struct delta *delta;
	uint64_t length, allocated;
	int r;

	if (level >= disk->stack->nlevels)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "there is no level %u", level);
	delta = &disk->stack->levels[level];
	r = io_size(delta->file, &length);
	if (!r)
		r = io_allocated(delta->file, &allocated);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_FSTAT, "%s", delta->file->path);
	*ret = (struct ploop_level){
		.path = delta->file->path,
		.format = delta->format->name,
		.version = delta->geometry.version,
		.size = delta->geometry.size,
		.length = length,
		.allocated = allocated,
		.data_start = geometry_offset(&delta->geometry, delta->geometry.first),
	};
	return 0;
}

static void disk_answered(struct device_request *request, int result)
{
	disk_answer_set(container_of(request, struct disk_answer, request), result);
}

/* Reads at most DISK_CHUNK bytes, all multiples of 512. */
static int disk_read_chunk(struct ploop_disk *disk, void *buffer, size_t length, uint64_t offset)
{
	struct disk_answer answer = {
		.request = {
			.kind = DEVICE_READ,
			.offset = offset,
			.length = length,
			.buffer = buffer,
			.done = disk_answered,
		},
		.loop = disk->loop,
	};

	device_submit(disk->device, &answer.request);
	return disk_wait(&answer);
}

int ploop_disk_read(struct ploop_disk *disk, void *buffer, size_t length, uint64_t offset, struct ploop_error *err)
{
	uint8_t *bounce, *to = buffer;
	uint64_t end;
	int r = 0;

	if (!checked_add(offset, length, &end) || end > device_size(disk->device))
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "a read beyond the end of the disk");
	bounce = io_buffer_new(DISK_CHUNK);
	if (!bounce)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "reading a disk");
	while (offset < end && !r) {
		uint64_t start = round_down(offset, SECTOR);
		uint64_t stop = min_u64(round_up(end, SECTOR), start + DISK_CHUNK);
		size_t take = (size_t)(min_u64(stop, end) - offset);

		r = disk_read_chunk(disk, bounce, (size_t)(stop - start), start);
		if (r < 0)
			error_sys(err, r, PLOOP_EXIT_READ, "%s: reading at byte %llu of the disk",
				  disk->stack->levels[disk->stack->nlevels - 1].file->path, (unsigned long long)offset);
		else
			memcpy(to, bounce + (offset - start), take);
		to += take;
		offset += take;
	}
	io_buffer_free(bounce, DISK_CHUNK);
	return r;
}

int disk_erase(struct ploop_disk *disk, uint64_t offset, uint64_t length, struct ploop_error *err)
{
	struct disk_answer answer = {
		.request = {
			.kind = DEVICE_WRITE_ZEROES,
			.offset = offset,
			.length = length,
			.done = disk_answered,
		},
		.loop = disk->loop,
	};
	int r;

	device_submit(disk->device, &answer.request);
	r = disk_wait(&answer);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_WRITE, "%s: erasing at byte %llu of the disk",
				 disk->stack->levels[disk->stack->nlevels - 1].file->path, (unsigned long long)offset)
		     : 0;
}

int disk_resize(struct ploop_disk *disk, uint64_t size, struct ploop_error *err)
{
	const char *path = disk->stack->levels[disk->stack->nlevels - 1].file->path;
	struct disk_answer answer = { .loop = disk->loop };
	int r = device_resize(disk->device, size, disk_closed, &answer, err);

	if (r < 0)
		return r;
	r = disk_wait(&answer);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_WRITE, "%s: making it larger", path) : 0;
}
