/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * push.c - a new top: what a snapshot is to the engine.
 *
 *	        clusters that are partial (partial.h) are filled, while requests go on
 *	MARK    the new delta is marked in use, durably; the dirty bitmaps of the disk come with that (cbt.h)
 *	FLUSH   flushes, while requests go on, so that little is left for the last
 *	DRAIN   new requests wait at the gate; those under way end
 *	SETTLE  the last flush
 *	        the new delta is the top; the gate opens
 *	RETIRE  the old top gets the length it needs and loses its in-use mark, while requests go on
 *
 * Order of writes:
 *  1. Nothing is written to the new delta but its mark before everything that was written to the old top is durable, index and
 *     all: entries of the old top that the new one covers leave the map, and could not be written any more.
 *  2. The caller makes the new delta and everything that names it (the descriptor) durable before it calls: it is empty, so
 *     that a stack with it on top is the same disk at every moment until the gate opens.
 *  3. The old top loses its mark only after all of that, in its own time. A crash before leaves the mark in a lower delta, which
 *     the next opening of the stack clears.
 * A failure before the gate opens leaves the device as it was.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "device/internal.h"
#include "io/loop.h"

/* A flush that took longer than this is tried again, as the next has less to do; but not for ever. */
#define PUSH_SHORT_NS 500000u
#define PUSH_ROUNDS 4

enum push_step {
	PUSH_MARK,
	PUSH_MARK_SYNC,
	PUSH_FLUSH,
	PUSH_DRAIN,
	PUSH_SETTLE,
	PUSH_RETIRE,
	PUSH_CLEAN,
	PUSH_CLEAN_SYNC
};

struct device_push {
	struct device *device;
	struct device_job job;
	enum push_step step;
	struct writer *old, *new;
	struct device_request flush;
	unsigned rounds;   /* flushes while requests went on */
	uint64_t flush_at; /* when the last of them began */
	struct io_op op;
	struct loop_task end;
	uint8_t *sector;
	void (*done)(void *data, int result);
	void *data;
};

static void push_free(struct device_push *push)
{
	if (!push)
		return;
	writer_free(push->old);
	writer_free(push->new);
	if (push->sector)
		io_buffer_free(push->sector, SECTOR);
	free(push);
}

static void push_end(struct device_push *push, int result)
{
	void (*done)(void *data, int result) = push->done;
	void *data = push->data;
	struct device *dev = push->device;

	push_free(push);
	job_end(dev, done, data, result);
}

static void push_ended(struct loop_task *task)
{
	push_end(container_of(task, struct device_push, end), 0);
}

static void push_failed(struct device_push *push, int result)
{
	struct device *dev = push->device;

	push->old = NULL; /* stays the top */
	gate_open(dev);
	push_end(push, result);
}

static void push_io(struct device_push *push, const struct writer *writer, enum io_kind kind)
{
	struct io_op *op = &push->op;

	op->kind = kind;
	op->file = writer->delta->file;
	op->offset = 0;
	op->length = kind == IO_WRITE ? SECTOR : 0;
	op->buffer = push->sector;
	device_io(push->device, op);
}

/* Sends the first sector of the delta with its new state on its way. */
static void push_write_head(struct device_push *push, struct writer *writer, enum format_state state)
{
	int r = writer_build_head(writer, state, push->sector);

	if (r)
		push->op.done(&push->op, r);
	else
		push_io(push, writer, IO_WRITE);
}

static void push_flush(struct device_push *push)
{
	push->flush.kind = DEVICE_FLUSH;
	push->flush.offset = push->flush.length = 0;
	push->flush.flags = 0;
	push->flush_at = loop_now(push->device->loop);
	request_submit(push->device, &push->flush);
}

static void push_switch(struct device_push *push)
{
	struct device *dev = push->device;

	dev->nlevels++;
	dev->writer = push->new;
	dev->top = push->new->delta;
	if (dev->shadow) {
		/* All of the old one is durable. */
		shadow_level_set_top(push->new->shadow);
		shadow_level_free(push->old->shadow);
		push->old->shadow = NULL;
	}
	push->new = NULL;
	gate_open(dev);
	push->step = PUSH_RETIRE;
	/*
	 * An old top that cannot be cut or unmarked is no worse than after a crash. Its own commit may have called us: the old
	 * writer is freed when that is over.
	 */
	if (!push->old->delta->format->has_index || writer_cut_tail(push->old)) {
		push->end.run = push_ended;
		loop_defer(dev->loop, &push->end);
	} else {
		push_io(push, push->old, IO_DATASYNC);
	}
}

/* Goes on when nothing is under way any more. */
static void push_poke(struct device_job *job)
{
	struct device_push *push = container_of(job, struct device_push, job);

	if (push->step != PUSH_DRAIN || !list_empty(&push->device->active))
		return;
	push->step = PUSH_SETTLE;
	push_flush(push);
}

static void push_flushed(struct device_request *request, int result)
{
	struct device_push *push = container_of(request, struct device_push, flush);

	if (result) {
		push_failed(push, result);
		return;
	}
	if (push->step == PUSH_FLUSH && ++push->rounds < PUSH_ROUNDS &&
	    loop_now(push->device->loop) - push->flush_at > PUSH_SHORT_NS) {
		push_flush(push);
		return;
	}
	if (push->step == PUSH_FLUSH) {
		push->step = PUSH_DRAIN;
		gate_close(push->device);
		push_poke(&push->job);
		return;
	}
	/* A commit that nobody asked for may be under way again. */
	if (commit_busy(&push->old->commit))
		push_flush(push);
	else
		push_switch(push);
}

static void push_done(struct io_op *op, int result)
{
	struct device_push *push = container_of(op, struct device_push, op);

	if (result && push->step < PUSH_RETIRE) {
		push_failed(push, result);
		return;
	}
	if (result) {
		push_end(push, 0);
		return;
	}
	push->step++;
	switch (push->step) {
	case PUSH_MARK_SYNC:
		push_io(push, push->new, IO_DATASYNC);
		break;
	case PUSH_FLUSH:
		push_flush(push);
		break;
	case PUSH_CLEAN:
		push->old->delta->geometry.extension = 0; /* the bitmaps are the new top's */
		push_write_head(push, push->old, FORMAT_CLEAN);
		break;
	case PUSH_CLEAN_SYNC:
		push_io(push, push->old, IO_DATASYNC);
		break;
	default:
		push_end(push, 0);
		break;
	}
}

static void push_begin(struct device_job *job, int result)
{
	struct device_push *push = container_of(job, struct device_push, job);

	if (result)
		push_failed(push, result);
	else
		push_io(push, push->new, IO_WRITE);
}

int device_can_push(const struct device *dev, struct ploop_error *err)
{
	int r = job_check(dev, "it cannot get a new top", err);

	if (r)
		return r;
	if (dev->under)
		return error_set(err, -EBUSY, PLOOP_EXIT_BUSY, "a merge was stopped half-way; let it end first");
	if (dev->full)
		return error_set(err, -ENOSPC, PLOOP_EXIT_WRITE,
				 "the host's file system is full and writes wait; make room first");
	if (dev->nlevels == DEVICE_MAX_LEVELS)
		return error_set(err, -E2BIG, PLOOP_EXIT_PARAM, "a stack has at most %d deltas", DEVICE_MAX_LEVELS);
	return 0;
}

static int push_check(const struct device *dev, const struct delta *delta, struct ploop_error *err)
{
	int r = device_can_push(dev, err);

	if (r)
		return r;
	if (!delta->format->has_index || delta->geometry.cluster != dev->cluster || delta->geometry.size != dev->size)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "%s: is not a delta of the same size and clusters",
				 delta->file->path);
	return writer_check(delta, err);
}

/* The new delta must be empty: nothing of it may be in the map. */
static int push_check_empty(const struct delta *delta, struct ploop_error *err)
{
	const struct geometry *g = &delta->geometry;
	uint64_t size, end = geometry_offset(g, g->first);
	int r = io_size(delta->file, &size);

	if (r)
		return error_sys(err, r, PLOOP_EXIT_FSTAT, "%s: cannot tell its size", delta->file->path);
	if (size != end)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "%s: is not empty", delta->file->path);
	return 0;
}

int device_push(struct device *dev, const struct delta *delta, void (*done)(void *data, int result), void *data,
		struct ploop_error *err)
{
	struct device_push *push;
	int r = push_check(dev, delta, err);

	if (!r)
		r = push_check_empty(delta, err);
	if (r)
		return r;
	push = calloc(1, sizeof(*push));
	dev->levels[dev->nlevels] = *delta;
	if (push)
		push->sector = io_buffer_new(SECTOR);
	if (!push || !push->sector || writer_new(dev, dev->nlevels, &push->new) ||
	    writer_init_alloc(push->new, delta->geometry.first)) {
		push_free(push);
		return error_set(err, -ENOMEM, PLOOP_EXIT_MALLOC, "no memory for another delta");
	}
	if (push->new->shadow)
		shadow_level_activate(push->new->shadow);
	push->device = dev;
	push->old = dev->writer;
	push->op.done = push_done;
	push->flush.done = push_flushed;
	push->done = done;
	push->data = data;
	if (dev->cbt.n)
		r = cbt_put(push->new, 0);
	if (!r)
		r = writer_build_head(push->new, FORMAT_IN_USE, push->sector);
	if (r) {
		push->old = NULL; /* stays the top */
		push_free(push);
		return error_sys(err, r, PLOOP_EXIT_READ, "%s: cannot be made ready", delta->file->path);
	}
	push->job = (struct device_job){ .name = "a snapshot", .begin = push_begin, .poke = push_poke };
	job_begin(dev, &push->job);
	return 0;
}
