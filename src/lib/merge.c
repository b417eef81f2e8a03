/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * merge.c - images that no device uses are merged.
 *
 * They are made a device in this process, between two images that are empty and only in memory: one on top, so that all that is
 * merged lies below the top and is only read; and one at the bottom, so that zeros are stored in a lowest image that may itself
 * be a delta of something. A raw image is always a base.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "device/device.h"
#include "image/create.h"
#include "image/descriptor.h"
#include "image/dir.h"
#include "image/extension.h"
#include "image/lock.h"
#include "image/stack.h"
#include "io/loop.h"
#include "lib/merge-names.h"
#include "lib/recover.h"

#define MERGE_DEPTH 64
#define MERGE_AT_ONCE 100 /* images; the stack has a limit, and merging in parts is as good */
#define MERGE_REPORT_NS 100000000u

struct offline {
	const struct ploop_merge *merge;
	struct merge_names *names;
	struct loop *loop;
	struct stack *stack;
	struct delta levels[MERGE_AT_ONCE + 2];
	unsigned nlevels;
	struct delta bottom, top; /* in memory; without a file when not needed */
	struct device *device;
	struct loop_timer timer;
	bool done;
	int result;
};

static int empty_in_memory(struct offline *offline, struct delta *ret, struct ploop_error *err)
{
	const struct geometry *like = &offline->stack->levels[offline->stack->nlevels - 1].geometry;
	const struct image_params params = { .version = like->version, .size = like->size, .cluster = like->cluster };
	_close_ int fd = -EBADF;
	uint8_t head[FORMAT_HEAD] = { 0 };
	char path[32];
	int r;

	ret->format = &format_ploop1;
	r = image_plan(&params, &ret->geometry, err);
	if (r < 0)
		return r;
	fd = memfd_create("ploop-merge", MFD_CLOEXEC);
	if (fd < 0)
		return error_sys(err, -errno, PLOOP_EXIT_MALLOC, "an image in memory");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	r = io_open(offline->loop, NULL, path, IO_RDWR, &ret->file, err);
	if (r < 0)
		return r;
	ret->format->build(&ret->geometry, head);
	r = io_truncate(ret->file, geometry_offset(&ret->geometry, ret->geometry.first));
	if (!r)
		r = io_pwrite(ret->file, head, sizeof(head), 0);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_MALLOC, "an image in memory") : 0;
}

static void merged(void *data, int result)
{
	struct offline *offline = data;

	offline->done = true;
	offline->result = result;
	loop_stop(offline->loop);
}

static void report(struct loop_timer *timer)
{
	struct offline *offline = container_of(timer, struct offline, timer);
	const struct ploop_merge *merge = offline->merge;
	uint64_t total, done;

	if (!device_merge_progress(offline->device, &total, &done))
		return;
	if (merge->progress && merge->progress(merge->progress_data, "merge", done, total))
		device_merge_stop(offline->device);
	else
		loop_timer_set(offline->loop, timer, MERGE_REPORT_NS);
}

static int wait_until_done(struct offline *offline)
{
	int r = 0;

	while (!offline->done && !r)
		r = loop_run(offline->loop);
	return r < 0 ? r : offline->result;
}

static int close_device(struct offline *offline)
{
	offline->done = false;
	device_close(take_ptr(offline->device), merged, offline);
	return wait_until_done(offline);
}

/* A lowest image that is smaller than what comes into it grows first; with what lies above it it stays the same disk. */
static void tell_growth(const struct stack *stack)
{
	uint64_t size = stack->levels[stack->nlevels - 1].geometry.size;

	if (stack->levels[0].geometry.size < size)
		log_info("Growing %s size=%llu sectors", stack->levels[0].file->path, (unsigned long long)(size / SECTOR));
}

/* The device is open; everything above `low` but the top goes into it. */
static int run_merge(struct offline *offline, unsigned low, struct io_file *file, struct ploop_error *err)
{
	const char *path = offline->stack->levels[0].file->path;
	const struct device_merge_config config = {
		.low = low,
		.high = offline->nlevels - 2,
		.file = file,
		.bytes_a_second = offline->merge->bytes_a_second,
		.done = merged,
		.data = offline,
	};
	bool first = !offline->names->marked;
	int r = offline->merge->new_image ? 0 : merge_names_mark(offline->names, err);

	tell_growth(offline->stack);
	if (r == 0)
		r = device_merge(offline->device, &config, err);
	if (r < 0) {
		if (first)
			merge_names_unmark(offline->names);
		close_device(offline);
		return r;
	}
	merge_names_pause(offline->names);
	offline->timer.expired = report;
	report(&offline->timer);
	r = wait_until_done(offline);
	if (offline->timer.armed)
		loop_timer_cancel(offline->loop, &offline->timer);
	if (!r)
		r = close_device(offline);
	else
		close_device(offline);
	if (r == -ECANCELED)
		return error_set(err, r, PLOOP_EXIT_ABORT, "stopped; nothing is lost, merging again finishes it");
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_WRITE, "%s: merging into it failed; nothing is lost", path) : 0;
}

static int open_device(struct offline *offline, bool bottom, struct ploop_error *err)
{
	const struct stack *stack = offline->stack;
	struct device_config config = { .loop = offline->loop,
					.levels = offline->levels,
					.on_full = DEVICE_FULL_ERROR };
	int r = 0;

	if (bottom)
		r = empty_in_memory(offline, &offline->bottom, err);
	if (!r)
		r = empty_in_memory(offline, &offline->top, err);
	if (r < 0)
		return r;
	offline->nlevels = 0;
	if (bottom)
		offline->levels[offline->nlevels++] = offline->bottom;
	for (unsigned i = 0; i < stack->nlevels; i++)
		offline->levels[offline->nlevels++] = stack->levels[i];
	offline->levels[offline->nlevels++] = offline->top;
	config.nlevels = offline->nlevels;
	return device_open(&config, &offline->device, err);
}

/* The stack is open for reading: its lowest image takes all the others. */
static int merge_stack(struct offline *offline, struct ploop_error *err)
{
	struct delta *low = &offline->stack->levels[0];
	bool bottom = low->format->has_index;
	struct io_file *file = NULL;
	int r = stack_lock(offline->stack, 0, FILE_LOCK_READ, FILE_LOCK_WRITE, err);

	if (!r)
		r = image_settle_extension(low, err);
	if (!r)
		r = stack_open_writable(offline->loop, offline->stack, 0, &file, err);
	/* Nobody writes to the others, and the host may have read or written them lately. */
	for (unsigned level = 1; level < offline->stack->nlevels; level++)
		offline->stack->levels[level].file->from_cache = true;
	if (!r)
		r = open_device(offline, bottom, err);
	if (!r)
		r = run_merge(offline, bottom, file, err);
	io_close(file);
	return r;
}

static int merge_part(const struct ploop_merge *merge, struct merge_names *names, const char *const *images, unsigned n,
		      struct ploop_error *err)
{
	const struct stack_request request = {
		.operands = images,
		.noperands = n,
		.base_format = merge->base_format,
		.read_only = true,
	};
	struct offline *offline = calloc(1, sizeof(*offline));
	int r;

	if (!offline)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "merge");
	offline->merge = merge;
	offline->names = names;
	r = loop_new(NULL, MERGE_DEPTH, &offline->loop, err);
	if (!r)
		r = stack_open(offline->loop, &request, &offline->stack, err);
	if (!r)
		r = merge_stack(offline, err);
	stack_close(offline->stack);
	io_close(offline->bottom.file);
	io_close(offline->top.file);
	if (offline->loop)
		loop_free(offline->loop);
	free(offline);
	return r;
}

/* One past the last of those from `at` on that have the same size and go at once. */
static unsigned end_of_part(const uint64_t *sizes, unsigned at, unsigned n)
{
	unsigned end = at + 1;

	while (end < n && sizes[end] == sizes[at] && end - at < MERGE_AT_ONCE - 1)
		end++;
	return end;
}

/*
 * The lowest first: what is merged already is in the lowest, which is the first image of each part. It is never larger than the
 * smallest of those that are still to come, as the stack must fit wherever it is cut off.
 */
static int merge_all(const struct ploop_merge *merge, struct merge_names *names, const char **images,
		     const uint64_t *sizes, unsigned n, struct ploop_error *err)
{
	int r = 0;

	for (unsigned at = 1, end; at < n && !r; at = end) {
		end = end_of_part(sizes, at, n);
		images[at - 1] = images[0];
		r = merge_part(merge, names, images + at - 1, end - at + 1, err);
	}
	return r;
}

/* What the original said about images that do not fit one another. */
static int check_fit(const struct ploop_merge *merge, struct geometry *ret, uint64_t *ret_sizes,
		     struct ploop_error *err)
{
	bool raw = merge->base_format && !strcmp(merge->base_format, "raw");

	for (unsigned i = raw; i < merge->nimages; i++) {
		const struct stack_request request = {
			.operands = &merge->images[i],
			.noperands = 1,
			.read_only = true,
			.unlocked = true,
		};
		struct stack *stack;
		struct geometry g;
		int r = stack_open(NULL, &request, &stack, err);

		if (r < 0)
			return r;
		g = stack->levels[0].geometry;
		stack_close(stack);
		if (i > raw && g.cluster != ret->cluster)
			return error_set(err, -EINVAL, PLOOP_EXIT_FORMAT, "Wrong blocksize %s bs=%u [prev bs=%u]",
					 merge->images[i], g.cluster / SECTOR, ret->cluster / SECTOR);
		if (i > raw && g.version != ret->version)
			return error_set(err, -EINVAL, PLOOP_EXIT_FORMAT, "Wrong version %s %u [prev %u]",
					 merge->images[i], g.version, ret->version);
		if (i == raw)
			*ret = g;
		ret_sizes[i] = g.size;
	}
	return 0;
}

/* *ret is what the lowest with an index is like. */
static int check(const struct ploop_merge *merge, struct geometry *ret, uint64_t *ret_sizes, struct ploop_error *err)
{
	for (unsigned i = 0; i < merge->nimages; i++) {
		_free_ char *path = NULL;
		int r = descriptor_find_file(merge->images[i], &path, err);

		if (r < 0)
			return r;
		if (r)
			return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Please use ploop snapshot-merge command");
	}
	if (merge->nimages < 2)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Single delta, nothing to merge");
	if (merge->new_image && merge->base_format && !strcmp(merge->base_format, "raw"))
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "a raw base cannot be merged into a new image (-n)");
	return check_fit(merge, ret, ret_sizes, err);
}

/* A new image below all others takes what is in them. It goes again when that fails. */
static int merge_into_new(const struct ploop_merge *merge, struct merge_names *names, const struct geometry *g,
			  const char **images, uint64_t *sizes, struct ploop_error *err)
{
	const struct image_params params = { .version = g->version, .size = g->size, .cluster = g->cluster };
	_dir_close_ struct dir *dir = NULL;
	const char *name;
	int r = dir_open_parent(NULL, merge->new_image, &dir, &name, err);

	if (!r)
		r = image_create(NULL, dir, name, &params, err);
	if (r == -EEXIST)
		return error_set(err, r, PLOOP_EXIT_PARAM, "Can't merge to new image %s: File exists",
				 merge->new_image);
	if (r < 0)
		return r;
	images[0] = merge->new_image;
	memcpy(images + 1, merge->images, merge->nimages * sizeof(*images));
	memmove(sizes + 1, sizes, merge->nimages * sizeof(*sizes));
	r = merge_all(merge, names, images, sizes, merge->nimages + 1, err);
	if (r < 0)
		dir_unlink(dir, name);
	return r;
}

static int merge_named(const struct ploop_merge *merge, struct merge_names *names, const struct geometry *g,
		       uint64_t *sizes, struct ploop_error *err)
{
	_free_ const char **images = calloc(merge->nimages + 1, sizeof(*images));

	if (!images)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "merge");
	merge_names_tell(merge->images, merge->nimages, merge->new_image);
	if (merge->new_image)
		return merge_into_new(merge, names, g, images, sizes, err);
	memcpy(images, merge->images, merge->nimages * sizeof(*images));
	return merge_all(merge, names, images, sizes, merge->nimages, err);
}

/* What is merged must stand in the indexes. Without a descriptor nobody knows what lies below, and the device says what to do. */
static int complete(const struct merge_names *names, struct ploop_error *err)
{
	const struct descriptor *d = names->change.descriptor;
	const struct snapshot *high;

	if (!names->n)
		return 0;
	high = descriptor_find(d, &names->guids[names->n - 1]);
	if (!recover_is_needed(d, high, true))
		return 0;
	log_info("%s was not closed: its images are completed first", d->path);
	return recover_images(d->path, d, high, true, err);
}

static int merge_checked(const struct ploop_merge *merge, const char *descriptor, bool alone, struct ploop_error *err)
{
	_merge_names_end_ struct merge_names names = { .change.lock = -EBADF,
						       .offline = true,
						       .remove = descriptor != NULL };
	_free_ uint64_t *sizes = calloc(merge->nimages + 1, sizeof(*sizes));
	struct geometry g = { 0 };
	int r = sizes ? check(merge, &g, sizes, err) : error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "merge");

	if (r == 0 && !alone)
		r = merge_names_begin(&names, descriptor, merge->images, merge->nimages, merge->new_image, err);
	if (r == 0)
		r = complete(&names, err);
	if (r == 0)
		r = merge_named(merge, &names, &g, sizes, err);
	return r < 0 ? r : merge_names_commit(&names, names.n, merge->new_image, err);
}

int merge_images(const struct ploop_merge *merge, const char *descriptor, struct ploop_error *err)
{
	return merge_checked(merge, descriptor, false, err);
}

int merge_alone(const struct ploop_merge *merge, struct ploop_error *err)
{
	return merge_checked(merge, NULL, true, err);
}

int ploop_merge(const struct ploop_merge *merge, struct ploop_error *err)
{
	return merge_images(merge, NULL, err);
}
