/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * resize.c - the device becomes larger while requests go on, or smaller while nobody uses it.
 *
 *	ERASE   growing: what the last cluster holds beyond the old end is zeroed; smaller: what is beyond the new end goes
 *	CLEAR   entries beyond the end are removed: no format needs them, but others' images may have some
 *	FIT     the index and the header of the top (refit.c, which states the rest of the order of writes)
 *
 * Order of writes:
 *  1. Entries that shall not come back are durably removed before the header says otherwise.
 *  2. Only when the header is durable requests may reach beyond the old end.
 * So a crash anywhere leaves the old size or the new one, and the same data. Growing again begins anew, and finds less to do.
 * The gate stays open.
 *
 * A raw delta has no header: its length is the size.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/error.h"
#include "device/refit.h"

#define CLEAR_STEP (UINT32_C(1) << 20) /* entries looked at in one turn of the loop */

enum resize_step { RESIZE_ERASE, RESIZE_CLEAR, RESIZE_FIT, RESIZE_RAW };

struct device_resize {
	struct device *device;
	struct device_job job;
	struct writer *writer;
	enum resize_step step;
	struct geometry old, new;
	uint32_t clear; /* next entry to look at */
	struct refit refit; /* with an index */
	struct device_request request;
	struct io_op op; /* raw */
	struct loop_task task;
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

	free(resize);
	job_end(dev, done, data, result);
}

/* Nothing has changed. */
static void resize_fail(struct device_resize *resize, int result)
{
	resize->device->size = resize->old.size;
	resize_end(resize, result);
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
	resize->step = RESIZE_FIT;
	refit_run(&resize->refit);
}

/* --- the new size --- */

static void resize_fitted(struct refit *refit, int result)
{
	struct device_resize *resize = container_of(refit, struct device_resize, refit);

	if (result) {
		resize_fail(resize, result);
		return;
	}
	cbt_resize(resize->device, resize->old.size, resize->new.size);
	resize->device->size = resize->new.size;
	resize_end(resize, 0);
}

static int resize_reserve(struct device_resize *resize)
{
	int r = map_grow(&resize->device->map, resize->new.clusters);

	if (r || !resize->writer->delta->format->has_index)
		return r;
	resize->refit = (struct refit){ .writer = resize->writer, .new = resize->new, .done = resize_fitted };
	return refit_init(&resize->refit);
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
	cbt_resize(dev, resize->old.size, resize->new.size);
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
		if (resize->step != RESIZE_RAW)
			refit_undo(&resize->refit);
		resize_fail(resize, resize->result ? resize->result : -ECANCELED);
	} else if (resize->step == RESIZE_ERASE) {
		resize_erase(resize);
	} else if (resize->step == RESIZE_CLEAR) {
		resize_clear(resize);
	} else if (resize->step == RESIZE_RAW) {
		resize_raw(resize);
	}
}

static void resize_begin(struct device_job *job, int result)
{
	struct device_resize *resize = container_of(job, struct device_resize, job);

	if (result) {
		resize_fail(resize, result);
		return;
	}
	if (!resize->writer->delta->format->has_index) {
		resize_later(resize, RESIZE_RAW);
		return;
	}
	refit_begin(&resize->refit);
	resize_later(resize, RESIZE_ERASE);
}

static void resize_poke(struct device_job *job)
{
	struct device_resize *resize = container_of(job, struct device_resize, job);

	if (resize->step == RESIZE_FIT)
		refit_poke(&resize->refit);
}

static void resize_stop(struct device_job *job)
{
	struct device_resize *resize = container_of(job, struct device_resize, job);

	resize->stopped = true;
	if (resize->step == RESIZE_FIT)
		refit_stop(&resize->refit);
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
	resize->task.run = resize_task;
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
