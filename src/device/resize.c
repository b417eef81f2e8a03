/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * resize.c - the device becomes larger while requests go on, or smaller while nobody uses it.
 *
 *	ERASE   growing: what the last cluster holds beyond the old end is zeroed; smaller: what is beyond the new end goes
 *	CLEAR   entries beyond the end are removed: no format needs them, but others' images may have some
 *	MOVE    clusters that lie where the longer index will be move away (relocate.c)
 *	SETTLE  a commit; again from MOVE on until no entry names that part of the file
 *	ZERO    that part of the file reads as zeros
 *	HEAD    a commit, whose first page brings the new header
 *
 * Order of writes:
 *  1. Nothing is put into the part of the file that the longer index will take, from the beginning on. What was there is durably
 *     elsewhere, entries included, before that part is zeroed: the old header stays right all the time.
 *  2. Entries that shall not come back are durably removed before the header says otherwise.
 *  3. The header is one sector: the size, the length of the index and its place change at once. It is written by a commit like
 *     an entry, so that the zeros of the new index are durable before it, and no older copy of the page can follow it.
 *  4. Only when the header is durable requests may reach beyond the old end, and only then clusters may be put where a longer
 *     index was.
 * So a crash anywhere leaves the old size or the new one, and the same data. Growing again begins anew, and finds less to do.
 * The gate stays open.
 *
 * A raw delta has no header: its length is the size.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/error.h"
#include "device/relocate.h"

#define CLEAR_STEP (UINT32_C(1) << 20) /* entries looked at in one turn of the loop */
#define RETRY_NS 5000000u

enum resize_step { RESIZE_ERASE, RESIZE_CLEAR, RESIZE_MOVE, RESIZE_SETTLE, RESIZE_ZERO, RESIZE_HEAD, RESIZE_RAW };

struct device_resize {
	struct device *device;
	struct device_job job;
	struct writer *writer;
	enum resize_step step;
	struct geometry old, new;
	uint32_t clear; /* next entry to look at */
	struct relocate relocate;
	bool relocating;
	struct device_request request;
	struct device_commit_waiter waiter;
	struct io_op op;
	struct loop_task task;
	struct loop_timer timer;
	int result;
	bool stopped;
	void (*done)(void *data, int result);
	void *data;
};

static void resize_later(struct device_resize *resize, enum resize_step step)
{
	resize->step = step;
	loop_defer(resize->device->loop, &resize->task);
}

static void resize_end(struct device_resize *resize, int result)
{
	void (*done)(void *data, int result) = resize->done;
	void *data = resize->data;
	struct device *dev = resize->device;

	if (resize->relocating)
		relocate_fini(&resize->relocate);
	free(resize);
	job_end(dev, done, data, result);
}

/* Before the header is written. Clusters that have moved stay where they are now. */
static void resize_fail(struct device_resize *resize, int result)
{
	struct writer *writer = resize->writer;

	resize->device->size = resize->old.size;
	if (writer->delta->format->has_index)
		alloc_set_first(&writer->alloc, resize->old.first);
	resize_end(resize, result);
}

static void resize_commit(struct device_resize *resize, enum resize_step step)
{
	resize->step = step;
	commit_wait(&resize->writer->commit, &resize->waiter);
}

/* --- what is beyond the end --- */

static void resize_erased(struct device_request *request, int result)
{
	struct device_resize *resize = container_of(request, struct device_resize, request);

	resize->result = result;
	resize_later(resize, RESIZE_CLEAR);
}

static void resize_erase(struct device_resize *resize)
{
	struct device *dev = resize->device;
	struct device_request *request = &resize->request;
	uint64_t end = round_up(resize->old.size, dev->cluster);

	request->done = resize_erased;
	request->flags = 0;
	request->buffer = NULL;
	if (resize->new.size < resize->old.size) {
		request->kind = DEVICE_DISCARD;
		request->offset = resize->new.size;
		request->length = resize->old.size - resize->new.size;
	} else if (end > resize->old.size) {
		/* Nobody else can reach it yet. */
		dev->size = end;
		request->kind = DEVICE_WRITE_ZEROES;
		request->offset = resize->old.size;
		request->length = end - resize->old.size;
	} else {
		resize_later(resize, RESIZE_CLEAR);
		return;
	}
	request_submit(dev, request);
}

static void resize_clear_entry(struct device_resize *resize, uint32_t v)
{
	struct writer *writer = resize->writer;
	uint32_t cluster = writer_entry(writer, v);

	map_clear(&resize->device->map, v);
	bitmap_clear(&resize->device->map.below, v);
	if (!cluster)
		return;
	writer_set_entry(writer, v, 0);
	alloc_free(&writer->alloc, cluster, false);
}

static void resize_clear(struct device_resize *resize)
{
	uint32_t all = resize->old.clusters;
	uint32_t end = (uint32_t)min_u64(all, (uint64_t)resize->clear + CLEAR_STEP);

	for (; resize->clear < end; resize->clear++)
		resize_clear_entry(resize, resize->clear);
	if (resize->clear < all) {
		resize_later(resize, RESIZE_CLEAR);
		return;
	}
	/* The rest of the last page belongs to the longer index. */
	commit_dirty(&resize->writer->commit, all - 1);
	resize_later(resize, RESIZE_MOVE);
}

/* --- room for the index --- */

static void resize_moved(struct relocate *relocate, int result)
{
	struct device_resize *resize = container_of(relocate, struct device_resize, relocate);

	relocate_fini(relocate);
	resize->relocating = false;
	if (result)
		resize_fail(resize, result);
	else
		resize_commit(resize, RESIZE_SETTLE);
}

static void resize_move(struct device_resize *resize)
{
	struct relocate *relocate = &resize->relocate;

	if (!alloc_named(&resize->writer->alloc, resize->old.first, resize->new.first)) {
		resize_commit(resize, RESIZE_SETTLE);
		return;
	}
	*relocate = (struct relocate){ .writer = resize->writer,
				       .from = resize->old.first,
				       .end = resize->new.first,
				       .below = UINT32_MAX,
				       .done = resize_moved };
	if (relocate_init(relocate)) {
		resize_fail(resize, -ENOMEM);
		return;
	}
	resize->relocating = true;
	resize->step = RESIZE_MOVE;
	relocate_run(relocate, UINT64_MAX);
}

/* The header names no extension any more, and so nothing is left of it but its place. */
static void resize_free_extension(struct device_resize *resize)
{
	struct writer *writer = resize->writer;
	struct geometry *g = &writer->delta->geometry;
	uint32_t cluster = writer_extension_cluster(writer);

	g->extension = 0;
	resize->old.extension = resize->new.extension = 0;
	writer_set_geometry(writer, g);
	alloc_free(&writer->alloc, cluster, false);
}

static void resize_zeroed(struct io_op *op, int result)
{
	struct device_resize *resize = container_of(op, struct device_resize, op);

	device_written(resize->device);
	if (result)
		resize_fail(resize, result);
	else
		resize_later(resize, RESIZE_HEAD);
}

/* Where the longer index will be, and as far as the file has been written to. */
static void resize_zero(struct device_resize *resize)
{
	struct writer *writer = resize->writer;
	struct io_op *op = &resize->op;
	uint64_t start = geometry_pages(&resize->old) * FORMAT_PAGE;
	uint64_t end = geometry_offset(&resize->new, resize->new.first);
	uint64_t size;
	int r = io_size(writer->delta->file, &size);

	if (!r && size < end)
		r = io_truncate(writer->delta->file, end);
	if (r) {
		resize_fail(resize, r);
		return;
	}
	writer->alloc.file = max_u64(writer->alloc.file, resize->new.first);
	device_written(resize->device);
	end = min_u64(end, round_up(size, SECTOR));
	if (start >= end) {
		resize_later(resize, RESIZE_HEAD);
		return;
	}
	resize->step = RESIZE_ZERO;
	op->kind = IO_PUNCH;
	op->file = writer->delta->file;
	op->offset = start;
	op->length = end - start;
	op->done = resize_zeroed;
	device_io(resize->device, op);
}

/* --- the new size --- */

static int resize_reserve(struct device_resize *resize)
{
	struct device *dev = resize->device;
	struct writer *writer = resize->writer;
	const struct geometry *g = &resize->new;
	uint64_t limit;
	int r = map_grow(&dev->map, g->clusters);

	if (r || !writer->delta->format->has_index)
		return r;
	limit = min_u64((uint64_t)writer->delta->format->last(g) + 1,
			writer->alloc.file + 2 * (uint64_t)g->clusters + 4096);
	r = alloc_grow(&writer->alloc, limit);
	return r ? r : bitmap_grow(&writer->commit.dirty, geometry_pages(g));
}

static void resize_head(struct device_resize *resize)
{
	writer_set_geometry(resize->writer, &resize->new);
	resize_commit(resize, RESIZE_HEAD);
}

static void resize_finished(struct device_resize *resize)
{
	resize->device->size = resize->new.size;
	alloc_set_first(&resize->writer->alloc, resize->new.first);
	resize_end(resize, 0);
}

/* What is left was chosen by a request before us, which may itself wait for something. */
static void resize_settled(struct device_resize *resize)
{
	if (alloc_named(&resize->writer->alloc, resize->old.first, resize->new.first))
		loop_timer_set(resize->device->loop, &resize->timer, RETRY_NS);
	else
		resize_later(resize, RESIZE_ZERO);
}

static void resize_retry(struct loop_timer *timer)
{
	resize_later(container_of(timer, struct device_resize, timer), RESIZE_MOVE);
}

static void resize_committed(struct device_commit_waiter *waiter, int result)
{
	struct device_resize *resize = container_of(waiter, struct device_resize, waiter);

	/* A commit that failed has aborted the device. */
	if (result)
		resize_end(resize, result);
	else if (resize->step == RESIZE_HEAD)
		resize_finished(resize);
	else
		resize_settled(resize);
}

/* --- raw --- */

static void resize_raw_synced(struct io_op *op, int result)
{
	struct device_resize *resize = container_of(op, struct device_resize, op);
	struct device *dev = resize->device;

	if (result) {
		device_abort(dev);
		resize_end(resize, result);
		return;
	}
	resize->writer->delta->geometry = resize->new;
	dev->size = resize->new.size;
	for (uint32_t v = resize->old.clusters; v < resize->new.clusters; v++)
		map_cover(&dev->map, v, resize->writer->level, v + 1);
	for (uint32_t v = resize->new.clusters; v < resize->old.clusters; v++)
		map_clear(&dev->map, v);
	resize_end(resize, 0);
}

static void resize_raw(struct device_resize *resize)
{
	struct io_file *file = resize->writer->delta->file;
	struct io_op *op = &resize->op;
	int r = 0;

	/* Half a sector at the end was not seen until now. */
	if (resize->new.size > resize->old.size)
		r = io_truncate(file, resize->old.size);
	if (!r)
		r = io_truncate(file, resize->new.size);
	if (r) {
		resize_fail(resize, r);
		return;
	}
	device_written(resize->device);
	op->kind = IO_DATASYNC;
	op->file = file;
	op->offset = op->length = 0;
	op->done = resize_raw_synced;
	device_io(resize->device, op);
}

/* --- --- */

static void resize_task(struct loop_task *task)
{
	struct device_resize *resize = container_of(task, struct device_resize, task);

	if (resize->result || resize->stopped) {
		resize_fail(resize, resize->result ? resize->result : -ECANCELED);
		return;
	}
	switch (resize->step) {
	case RESIZE_ERASE:
		resize_erase(resize);
		break;
	case RESIZE_CLEAR:
		resize_clear(resize);
		break;
	case RESIZE_MOVE:
	case RESIZE_SETTLE:
		resize_move(resize);
		break;
	case RESIZE_ZERO:
		resize_zero(resize);
		break;
	case RESIZE_HEAD:
		resize_head(resize);
		break;
	case RESIZE_RAW:
		resize_raw(resize);
		break;
	}
}

/* The extension may be another one than when the device had not settled. */
static void resize_begin(struct device_job *job, int result)
{
	struct device_resize *resize = container_of(job, struct device_resize, job);
	const struct geometry *g = &resize->writer->delta->geometry;

	resize->result = result;
	if (!resize->writer->delta->format->has_index) {
		resize_later(resize, RESIZE_RAW);
		return;
	}
	resize->old = *g;
	resize->new.extension = g->extension;
	resize->new.raw_state = g->raw_state;
	resize->new.partial = g->partial;
	if (g->extension && !result)
		resize_free_extension(resize);
	if (resize->new.first > resize->old.first)
		alloc_set_first(&resize->writer->alloc, resize->new.first);
	resize_later(resize, RESIZE_ERASE);
}

static void resize_poke(struct device_job *job)
{
	struct device_resize *resize = container_of(job, struct device_resize, job);

	if (resize->relocating)
		relocate_poke(&resize->relocate);
}

static void resize_stop(struct device_job *job)
{
	struct device_resize *resize = container_of(job, struct device_resize, job);

	resize->stopped = true;
	if (resize->relocating)
		relocate_stop(&resize->relocate);
}

static int resize_check(const struct device *dev, uint64_t size, struct geometry *ret, struct ploop_error *err)
{
	int r = job_check(dev, "its size cannot be changed", err);

	if (r)
		return r;
	if (dev->under)
		return error_set(err, -EBUSY, PLOOP_EXIT_BUSY, "a merge was stopped half-way; let it end first");
	for (unsigned i = 0; i + 1 < dev->nlevels; i++)
		if (dev->levels[i].geometry.size > size)
			return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
					 "%s: what lies below the top is larger than %llu bytes; merge it first",
					 dev->levels[i].file->path, (unsigned long long)size);
	return dev->top->format->resize(&dev->top->geometry, size, ret, err);
}

int device_resize(struct device *dev, uint64_t size, void (*done)(void *data, int result), void *data,
		  struct ploop_error *err)
{
	struct device_resize *resize;
	struct geometry new;
	int r = resize_check(dev, size, &new, err);

	if (r)
		return r;
	resize = calloc(1, sizeof(*resize));
	if (!resize)
		return error_set(err, -ENOMEM, PLOOP_EXIT_MALLOC, "no memory to change the size");
	resize->device = dev;
	resize->writer = dev->writer;
	resize->old = dev->top->geometry;
	resize->new = new;
	resize->clear = (uint32_t)div_round_up(min_u64(size, resize->old.size), dev->cluster);
	resize->waiter.done = resize_committed;
	resize->task.run = resize_task;
	resize->timer.expired = resize_retry;
	resize->done = done;
	resize->data = data;
	resize->job = (struct device_job){ .name = "a change of the size",
					  .begin = resize_begin,
					  .poke = resize_poke,
					  .stop = resize_stop };
	r = resize_reserve(resize);
	if (r) {
		free(resize);
		return error_set(err, r, PLOOP_EXIT_MALLOC, "no memory for the map of a disk of %u clusters",
				 new.clusters);
	}
	job_begin(dev, &resize->job);
	return 0;
}
