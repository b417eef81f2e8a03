/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * refit.c - the index and the header of a delta for another size.
 *
 *	MOVE    clusters that lie where the longer index will be move away (relocate.c)
 *	SETTLE  a commit; again from MOVE on until no entry names that part of the file
 *	ZERO    that part of the file reads as zeros
 *	HEAD    a commit, whose first page brings the new header
 *
 * Order of writes:
 *  1. Nothing is put into the part of the file that the longer index will take, from refit_begin() on. What was there is durably
 *     elsewhere, entries included, before that part is zeroed: the old header stays right all the time.
 *  2. Entries that shall not come back are durably removed before the header says otherwise.
 *  3. The header is one sector: the size, the length of the index and its place change at once. It is written by a commit like
 *     an entry, so that the zeros of the new index are durable before it, and no older copy of the page can follow it.
 *  4. Only when the header is durable clusters may be put where a longer index was.
 * So a crash anywhere leaves the old size or the new one, and the same data.
 */
#include "device/refit.h"

#include <errno.h>

#include "base/checked.h"

#define RETRY_NS 5000000u

enum refit_step { REFIT_MOVE, REFIT_SETTLE, REFIT_ZERO, REFIT_HEAD };

static void refit_later(struct refit *refit, enum refit_step step)
{
	refit->step = step;
	loop_defer(refit->writer->device->loop, &refit->task);
}

static void refit_commit(struct refit *refit, enum refit_step step)
{
	refit->step = step;
	commit_wait(&refit->writer->commit, &refit->waiter);
}

void refit_undo(struct refit *refit)
{
	alloc_set_first(&refit->writer->alloc, refit->old.first);
}

/* Before the header is written. */
static void refit_fail(struct refit *refit, int result)
{
	refit_undo(refit);
	refit->done(refit, result);
}

static void refit_moved(struct relocate *relocate, int result)
{
	struct refit *refit = container_of(relocate, struct refit, relocate);

	relocate_fini(relocate);
	refit->relocating = false;
	if (result)
		refit_fail(refit, result);
	else
#ifdef DEVICE_BREAK_GROW_ZERO /* tests/sim: entries on the disk still name what is zeroed */
		refit_later(refit, REFIT_ZERO);
#else
		refit_commit(refit, REFIT_SETTLE);
#endif
}

static void refit_move(struct refit *refit)
{
	struct relocate *relocate = &refit->relocate;

	if (!alloc_named(&refit->writer->alloc, refit->old.first, refit->new.first)) {
		refit_commit(refit, REFIT_SETTLE);
		return;
	}
	*relocate = (struct relocate){ .writer = refit->writer,
				       .from = refit->old.first,
				       .end = refit->new.first,
				       .below = UINT32_MAX,
				       .done = refit_moved };
	if (relocate_init(relocate)) {
		refit_fail(refit, -ENOMEM);
		return;
	}
	refit->relocating = true;
	refit->step = REFIT_MOVE;
	relocate_run(relocate, UINT64_MAX);
}

static void refit_zeroed(struct io_op *op, int result)
{
	struct refit *refit = container_of(op, struct refit, op);

	device_written(refit->writer->device);
	if (result)
		refit_fail(refit, result);
	else
		refit_later(refit, REFIT_HEAD);
}

/* Where the longer index will be, and as far as the file has been written to. */
static void refit_zero(struct refit *refit)
{
	struct writer *writer = refit->writer;
	struct io_op *op = &refit->op;
	uint64_t start = geometry_pages(&refit->old) * FORMAT_PAGE;
	uint64_t end = geometry_offset(&refit->new, refit->new.first);
	uint64_t size;
	int r = io_size(writer->delta->file, &size);

	if (!r && size < end)
		r = io_truncate(writer->delta->file, end);
	if (r) {
		refit_fail(refit, r);
		return;
	}
	writer->alloc.file = max_u64(writer->alloc.file, refit->new.first);
	writer->commit.written++;
	end = min_u64(end, round_up(size, SECTOR));
#ifdef DEVICE_BREAK_GROW_HEAD /* tests/sim: what was data is read as entries */
	start = end;
#endif
	if (start >= end) {
		refit_later(refit, REFIT_HEAD);
		return;
	}
	refit->step = REFIT_ZERO;
	op->kind = IO_PUNCH;
	op->file = writer->delta->file;
	op->offset = start;
	op->length = end - start;
	op->done = refit_zeroed;
	device_io(writer->device, op);
}

static void refit_head(struct refit *refit)
{
	writer_set_geometry(refit->writer, &refit->new);
	refit_commit(refit, REFIT_HEAD);
}

/* What is left was chosen by a request before us, which may itself wait for something. */
static void refit_settled(struct refit *refit)
{
	if (alloc_named(&refit->writer->alloc, refit->old.first, refit->new.first))
		loop_timer_set(refit->writer->device->loop, &refit->timer, RETRY_NS);
	else
		refit_later(refit, REFIT_ZERO);
}

static void refit_retry(struct loop_timer *timer)
{
	refit_later(container_of(timer, struct refit, timer), REFIT_MOVE);
}

static void refit_committed(struct device_commit_waiter *waiter, int result)
{
	struct refit *refit = container_of(waiter, struct refit, waiter);

	if (result) {
		refit->done(refit, result);
	} else if (refit->step == REFIT_HEAD) {
		alloc_set_first(&refit->writer->alloc, refit->new.first);
		refit->done(refit, 0);
	} else {
		refit_settled(refit);
	}
}

static void refit_task(struct loop_task *task)
{
	struct refit *refit = container_of(task, struct refit, task);

	if (refit->stopped)
		refit_fail(refit, -ECANCELED);
	else if (refit->step == REFIT_ZERO)
		refit_zero(refit);
	else if (refit->step == REFIT_HEAD)
		refit_head(refit);
	else
		refit_move(refit);
}

int refit_init(struct refit *refit)
{
	struct writer *writer = refit->writer;
	const struct geometry *g = &refit->new;
	uint64_t limit = min_u64((uint64_t)writer->delta->format->last(g) + 1,
				 writer->alloc.file + 2 * (uint64_t)g->clusters + 4096);
	int r = alloc_grow(&writer->alloc, limit);

	if (!r && writer->shadow)
		r = shadow_level_grow(writer->shadow, g->clusters);
	refit->waiter.done = refit_committed;
	refit->task.run = refit_task;
	refit->timer.expired = refit_retry;
	return r ? r : bitmap_grow(&writer->commit.dirty, geometry_pages(g));
}

/* The extension may be another one than when the device had not settled. */
void refit_begin(struct refit *refit)
{
	const struct geometry *g = &refit->writer->delta->geometry;

	refit->old = *g;
	refit->new.extension = g->extension;
	refit->new.state = g->state;
	refit->new.flags = g->flags;
	refit->new.raw_state = g->raw_state;
	refit->new.partial = g->partial;
	/* The longer index may need its place. It comes back when all is over (cbt.h). */
	writer_drop_extension(refit->writer);
	refit->old.extension = refit->new.extension = 0;
	if (refit->new.first > refit->old.first)
		alloc_set_first(&refit->writer->alloc, refit->new.first);
}

void refit_run(struct refit *refit)
{
	/* The rest of the last page belongs to the longer index. */
	commit_dirty(&refit->writer->commit, refit->old.clusters - 1);
	refit_later(refit, REFIT_MOVE);
}

void refit_stop(struct refit *refit)
{
	refit->stopped = true;
	if (refit->relocating)
		relocate_stop(&refit->relocate);
}

void refit_poke(struct refit *refit)
{
	if (refit->relocating)
		relocate_poke(&refit->relocate);
}
