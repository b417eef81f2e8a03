/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * reclaim-files.c - space goes back to the host, of a disk that nobody uses: in this process, without mounting anything. The map of
 * free blocks is read from a file system that was unmounted cleanly, and nobody can mount it meanwhile: the images are locked.
 *
 * Only what lies in the top can be released; snapshots stay what they are. What is released reads as zeros or as what lies
 * below, either of which a free block may.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/list.h"
#include "base/log.h"
#include "base/range.h"
#include "device/device.h"
#include "image/stack.h"
#include "io/loop.h"
#include "lib/disk.h"
#include "lib/ext-free.h"
#include "lib/reclaim.h"
#include "lib/superblock.h"

#define DEPTH 16
#define DISCARD_MAX (UINT64_C(256) << 20)
#define LOOK_EVERY 256 /* discards between two looks at the limits */
#define LOOK_NS UINT64_C(100000000)

/* What is waited for. Whoever answers stops the loop. */
struct answer {
	struct device_request request;
	struct loop_timer timer;
	struct ploop_disk *disk;
	struct reclaim_watch *watch;
	bool done;
	int result;
};

static int read_disk(void *data, void *buffer, size_t length, uint64_t offset)
{
	return ploop_disk_read(data, buffer, length, offset, NULL);
}

bool reclaim_find_free(struct ploop_disk *disk, struct ranges *ranges, struct ploop_error *err)
{
	struct superblock_source source = { .read = read_disk, .data = disk, .size = ploop_disk_size(disk) };
	struct ploop_fs fs;
	uint64_t start;
	int r = superblock_find(&source, &start);

	if (r == 0)
		r = superblock_read(&source, &fs);
	if (r < 0)
		error_set(err, r, PLOOP_EXIT_PARAM, "there is no file system of a known kind on it");
	else if (fs.type[0] != 'e')
		r = error_set(err, -EOPNOTSUPP, PLOOP_EXIT_PARAM,
			      "what is free in it only a mounted %s says; --automount mounts it for the time", fs.type);
	else
		r = ext_free(&source, start, ranges, err);
	return r == 0;
}

static void answer(struct answer *answer, int result)
{
	answer->done = true;
	answer->result = result;
	loop_stop(answer->disk->loop);
}

static void request_done(struct device_request *request, int result)
{
	answer(container_of(request, struct answer, request), result);
}

static void compact_done(void *data, int result)
{
	answer(data, result);
}

static int wait_for(struct answer *answer)
{
	int r = 0;

	while (!answer->done && r == 0)
		r = loop_run(answer->disk->loop);
	return r < 0 ? r : answer->result;
}

static int discard(struct ploop_disk *disk, uint64_t offset, uint64_t length)
{
	struct answer answer = {
		.request = { .kind = DEVICE_DISCARD, .offset = offset, .length = length, .done = request_done },
		.disk = disk,
	};

	device_submit(disk->device, &answer.request);
	return wait_for(&answer);
}

/* How much from `at` on lies in the top; *skip is how much of what follows does not. */
static uint64_t in_top(const struct ploop_disk *disk, uint64_t at, uint64_t end, uint64_t *skip)
{
	uint64_t from = at;
	struct ploop_extent extent;

	while (at < end && ploop_disk_extent(disk, at, &extent) && extent.mapped &&
	       extent.level + 1 == ploop_disk_levels(disk))
		at = extent.offset + extent.length;
	at = min_u64(at, end);
	*skip = at < end && ploop_disk_extent(disk, at, &extent) ? min_u64(extent.offset + extent.length, end) - at : 0;
	return at - from;
}

static int release_range(struct ploop_disk *disk, uint64_t at, uint64_t end)
{
	while (at < end) {
		uint64_t skip, length = in_top(disk, at, min_u64(end, at + DISCARD_MAX), &skip);
		int r = length ? discard(disk, at, length) : 0;

		if (r < 0)
			return r;
		at += length + skip;
	}
	return 0;
}

static int release(struct ploop_disk *disk, const struct ranges *ranges, struct reclaim_watch *watch,
		   struct ploop_error *err)
{
	uint64_t total = ranges_sum(ranges), done = 0;

	for (size_t i = 0; i < ranges->n; i++) {
		const struct range *range = &ranges->list[i];
		int r;

		if (i % LOOK_EVERY == 0 && reclaim_watch_look(watch, "trim", done, total))
			return watch->stopped ? error_set(err, -ECANCELED, PLOOP_EXIT_ABORT, "stopped") : 0;
		done += range->length;
		if (range->length < watch->what->min_block)
			continue;
		r = release_range(disk, range->offset, range->offset + range->length);
		if (r < 0)
			return error_sys(err, r, PLOOP_EXIT_RELOC, "%s: giving back what is free",
					 watch->images[watch->nimages - 1]);
	}
	return 0;
}

static void look_again(struct loop_timer *timer)
{
	struct answer *answer = container_of(timer, struct answer, timer);
	uint64_t total, done;

	if (answer->done || !device_compact_progress(answer->disk->device, &total, &done))
		return;
	if (reclaim_watch_look(answer->watch, "relocate", done, total))
		device_compact_stop(answer->disk->device);
	else
		loop_timer_set(answer->disk->loop, timer, LOOK_NS);
}

static int shorten(struct ploop_disk *disk, struct reclaim_watch *watch, struct ploop_error *err)
{
	struct answer answer = { .disk = disk, .watch = watch, .timer = { .expired = look_again } };
	const struct device_compact_config config = {
		.level = device_levels(disk->device) - 1,
		.bytes_a_second = watch->what->bytes_a_second,
		.done = compact_done,
		.data = &answer,
	};
	int r = device_compact(disk->device, &config, err);

	if (r == -EOPNOTSUPP) /* raw: what could be given back is */
		return 0;
	if (r < 0)
		return r;
	loop_timer_set(disk->loop, &answer.timer, LOOK_NS);
	r = wait_for(&answer);
	if (answer.timer.armed)
		loop_timer_cancel(disk->loop, &answer.timer);
	if (r == -ECANCELED && watch->stopped)
		return error_set(err, r, PLOOP_EXIT_ABORT, "stopped; what was gained is gained");
	if (r < 0 && r != -ECANCELED)
		return error_sys(err, r, PLOOP_EXIT_RELOC, "%s: making it shorter", watch->images[watch->nimages - 1]);
	return 0;
}

static int run(struct ploop_disk *disk, struct reclaim_watch *watch, struct ploop_reclaimed *result,
	       struct ploop_error *err)
{
	struct ranges ranges = { 0 };
	struct ploop_error why;
	int r = 0;

	if (!watch->what->no_trim) {
		result->trimmed = reclaim_find_free(disk, &ranges, &why);
		if (result->trimmed)
			r = release(disk, &ranges, watch, err);
		else
			log_warning("%s: %s", watch->images[watch->nimages - 1], why.text);
		ranges_clear(&ranges);
	}
	return r == 0 && !watch->enough ? shorten(disk, watch, err) : r;
}

int reclaim_files(const struct ploop_reclaim *reclaim, struct ploop_reclaimed *ret, struct ploop_error *err)
{
	const struct ploop_files files = { .paths = &reclaim->which.image, .npaths = 1 };
	const struct disk_config config = { .files = &files, .write = true, .depth = DEPTH };
	struct ploop_reclaimed result = { 0 };
	struct reclaim_watch watch;
	struct ploop_disk *disk;
	struct ploop_error other;
	char *images[DEVICE_MAX_LEVELS];
	size_t n = 0;
	int r = disk_open(&config, &disk, err), closed;

	if (r < 0)
		return r;
	result.cluster = ploop_disk_cluster(disk);
	for (; n < disk->stack->nlevels; n++)
		images[n] = strdup(disk->stack->levels[n].file->path);
	r = reclaim_watch_start(&watch, reclaim, (const char *const *)images, n, err);
	if (r == 0)
		r = reclaim_measure(watch.images, n, &result.length_before, &result.allocated_before, err);
	if (r == 0)
		r = run(disk, &watch, &result, err);
	closed = disk_close(disk, r < 0 ? &other : err);
	if (r == 0)
		r = closed < 0 ? closed : reclaim_measure(watch.images, n, &result.length, &result.allocated, err);
	result.enough = watch.enough;
	while (n > 0)
		free(images[--n]);
	if (r == 0 && ret)
		*ret = result;
	return r;
}
