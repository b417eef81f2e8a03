/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * partial-fill.c - what partial clusters lack is copied from below; and device_settle(), which waits until none is left. Where
 * the file system clones, a long run is cloned; a short one is copied all the same, which is cheaper than a change of the file
 * system's own tables.
 *
 * A fill holds its cluster's lock against writes, copies one run of missing units after another, and publishes each: it may stop
 * behind any of them, and does when somebody waits for the lock. How many run at a time:
 *
 *	one, for a few clusters a second                 as long as requests come, and there are few partial clusters
 *	one                                              no request came lately; or there are many
 *	PARTIAL_FILLS                                    somebody settles
 *
 * Settling, in this order (rules 6 and 7 of partial.h):
 *  0. Rounds: those that are there are filled while new ones may still be begun, until few are left. A round that ends
 *     with more than half of what it began with is the last: they come as fast as they go.
 *  1. No new ones are begun, those that are being begun are waited for, and all are filled.
 *  2. A commit: their entries are durable.
 *  3. The table goes.
 */
#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "device/internal.h"
#include "device/partial.h"

#define FILL_CHUNK (256u << 10)
#define FILL_CLONE_LEAST (64u << 10)
#define FILL_TICK_NS UINT64_C(100000000)
#define FILL_RETRY_NS UINT64_C(1000000000)
#define FILL_ALMS (2u << 20) /* bytes a tick, and at least a cluster */
#define SETTLE_FEW 4u

static void fill_run(struct partial_fill *fill);

static bool settling(const struct partials *partials)
{
	return !list_empty(&partials->settling);
}

static uint32_t chunk_size(const struct device *dev)
{
	return (uint32_t)min_u64(dev->cluster, FILL_CHUNK);
}

/* Over, for now or for good. */
static void fill_end(struct partial_fill *fill, int result)
{
	struct partials *partials = fill->partials;

	fill->partial->filling = false;
	fill->partial = NULL;
	partials->filling--;
	if (result)
		partials->error = result;
	lock_release(partials->device, &fill->lock);
	partials_poke(partials);
}

static uint64_t file_offset(const struct partial_fill *fill)
{
	const struct partials *partials = fill->partials;

	return geometry_offset(&partials->writer->delta->geometry, fill->partial->cluster) + fill->start;
}

static bool is_zero(const unsigned char *p, uint64_t len)
{
	return !p[0] && !memcmp(p, p + 1, len - 1);
}

static void fill_stored(struct partial_fill *fill)
{
	struct partials *partials = fill->partials;
	struct partial *partial = fill->partial;

	partial_publish(partials, partial, fill->start, fill->end);
	if (partial->state == PARTIAL_LIVE && list_empty(&fill->lock.waiters)) {
		fill_run(fill);
		return;
	}
	partials->device->stats.bio_fills += partial->state != PARTIAL_LIVE;
	partials->round_filled += partial->state != PARTIAL_LIVE;
	fill_end(fill, 0);
}

static void fill_io(struct partial_fill *fill, enum io_kind kind)
{
	struct io_op *op = &fill->op;

	op->kind = kind;
	op->file = fill->partials->writer->delta->file;
	op->offset = file_offset(fill);
	op->length = fill->end - fill->start;
	op->buffer = fill->buffer;
	device_io(fill->partials->device, op);
}

/* The delta that maps the cluster below, and where the run lies in its file. */
static const struct delta *fill_below(const struct partial_fill *fill, uint64_t *ret_offset)
{
	const struct device *dev = fill->partials->device;
	uint32_t v = fill->partial->v;
	const struct delta *delta = &dev->levels[dev->map.level[v]];

	*ret_offset = geometry_offset(&delta->geometry, dev->map.cluster[v]) + fill->start;
	return delta;
}

static bool fill_can_clone(const struct partial_fill *fill)
{
	const struct delta *to = fill->partials->writer->delta;
	uint64_t offset;

	return fill->end - fill->start >= FILL_CLONE_LEAST && fill->start % to->file->block == 0 &&
	       fill->end % to->file->block == 0 && delta_can_clone(to, fill_below(fill, &offset));
}

/* What lies below is in the buffer. Zeros are not stored where zeros are already. */
static void fill_store(struct partial_fill *fill)
{
	if (!is_zero(fill->buffer, fill->end - fill->start))
		fill_io(fill, IO_WRITE);
	else if (!fill->partial->blank)
		fill_io(fill, IO_PUNCH);
	else
		fill_stored(fill);
}

static void fill_read(struct partial_fill *fill)
{
	const struct partials *partials = fill->partials;
	struct device *dev = partials->device;
	struct io_op *op = &fill->op;

	fill->end = min_u64(fill->end, fill->start + chunk_size(dev));
	op->kind = IO_READ;
	op->file = fill_below(fill, &op->offset)->file;
	op->length = fill->end - fill->start;
	op->buffer = fill->buffer;
	device_io(dev, op);
}

/* Nothing was cloned: this run, or this file system, cannot be. */
static bool fill_clone_refused(const struct io_op *op, int result)
{
	return op->kind == IO_CLONE && (result == -EOPNOTSUPP || result == -EXDEV || result == -EINVAL);
}

static void fill_clone(struct partial_fill *fill)
{
	struct io_op *op = &fill->op;

	op->source = fill_below(fill, &op->source_offset)->file;
	fill_io(fill, IO_CLONE);
}

static void fill_done(struct io_op *op, int result)
{
	struct partial_fill *fill = container_of(op, struct partial_fill, op);
	struct device *dev = fill->partials->device;

	if (stall_op(dev, op, result))
		return;
	if (op->kind != IO_READ)
		device_written(dev);
	if (fill_clone_refused(op, result) && !dev->aborted) {
		fill_read(fill);
		return;
	}
	/* A write that failed may have been done in part. */
	if (result && op->kind != IO_READ)
		fill->partial->blank = false;
	if (result || dev->aborted)
		fill_end(fill, result ? result : -EIO);
	else if (op->kind == IO_READ)
		fill_store(fill);
	else
		fill_stored(fill);
}

/* Takes the next run of missing units from below. */
static void fill_run(struct partial_fill *fill)
{
	struct partials *partials = fill->partials;
	const struct device *dev = partials->device;
	const struct partial *partial = fill->partial;
	bool there;

	fill->start = 0;
	fill->end = partial_run(partials, partial, 0, &there);
	if (there) {
		fill->start = fill->end;
		fill->end = partial_run(partials, partial, fill->start, &there);
	}
	if (!dev->map.cluster[partial->v]) {
		fill->end = min_u64(fill->end, fill->start + chunk_size(dev));
		memset(fill->buffer, 0, fill->end - fill->start);
		fill_store(fill);
	} else if (fill_can_clone(fill)) {
		fill_clone(fill);
	} else {
		fill_read(fill);
	}
}

/* The oldest one that nobody writes to. */
static struct partial *choose(const struct partials *partials)
{
	list_for_each (node, &partials->lists[PARTIAL_LIVE]) {
		struct partial *partial = container_of(node, struct partial, node);

		if (!partial->filling && !lock_conflict(partials->device, partial->v, partial->v, false))
			return partial;
	}
	return NULL;
}

/* How many fills may run now. */
static unsigned wanted(const struct partials *partials)
{
	const struct device *dev = partials->device;

	if (!partials->count[PARTIAL_LIVE] || partials->error || dev->aborted || dev->read_only)
		return 0;
	if (settling(partials))
		return PARTIAL_FILLS;
	if (partials->count[PARTIAL_LIVE] > partials->limit / 4 * 3 || partials->alms)
		return 1;
	return partials->idle && dev->stats.bio_in == partials->seen && list_empty(&dev->active);
}

static void start_fills(struct partials *partials)
{
	for (unsigned i = 0; i < PARTIAL_FILLS && partials->filling < wanted(partials); i++) {
		struct partial_fill *fill = &partials->fills[i];
		struct partial *partial = fill->partial ? NULL : choose(partials);

		if (!partial)
			continue;
		if (!fill->buffer)
			fill->buffer = io_buffer_new(chunk_size(partials->device));
		if (!fill->buffer) {
			partials->error = -ENOMEM;
			break;
		}
		fill->partial = partial;
		partial->filling = true;
		partials->filling++;
		partials->alms -= !!partials->alms;
		lock_take(partials->device, &fill->lock, partial->v, partial->v, false);
		fill_run(fill);
	}
}

static void tick(struct loop_timer *timer)
{
	struct partials *partials = container_of(timer, struct partials, timer);
	uint64_t seen = partials->device->stats.bio_in;

	partials->idle = seen == partials->seen;
	partials->seen = seen;
	partials->alms = (unsigned)max_u64(1, FILL_ALMS / partials->device->cluster);
	partials->error = 0;
	partials_poke(partials);
}

static void arm(struct partials *partials)
{
	const struct device *dev = partials->device;

	if (partials->count[PARTIAL_LIVE] && !partials->timer.armed && !dev->aborted && !dev->read_only)
		loop_timer_set(partials->device->loop, &partials->timer,
			       partials->error ? FILL_RETRY_NS : FILL_TICK_NS);
}

/* ---- Settling ---- */

bool partials_quiet(const struct partials *partials)
{
	return !partials->filling && !partials->committing && !partials_turning(partials) && !partials->task.queued;
}

static void tell(struct partials *partials, int result)
{
	struct list waiting;
	struct list *node;

	list_init(&waiting);
	list_move_all(&waiting, &partials->settling);
	while ((node = list_pop(&waiting)) != NULL) {
		struct device_settle *settle = container_of(node, struct device_settle, node);

		settle->done(settle, result);
	}
}

static void settle_committed(struct device_commit_waiter *waiter, int result)
{
	struct partials *partials = container_of(waiter, struct partials, settled);

	partials->committing = false;
	if (result)
		partials->error = result;
	partials_poke(partials);
}

/* Whether new ones may still be begun while somebody settles. */
static bool few_yet(struct partials *partials)
{
	const struct device *dev = partials->device;
	unsigned live = partials->count[PARTIAL_LIVE];

	if (live <= SETTLE_FEW || partials->error || dev->aborted || dev->read_only) {
		partials->few_yet = false;
	} else if (partials->round_filled >= partials->round) {
		partials->few_yet = live <= partials->round / 2;
		partials->round = live;
		partials->round_filled = 0;
	}
	return partials->few_yet;
}

static void settle_step(struct partials *partials)
{
	struct device *dev = partials->device;

	if (partials->few_yet && few_yet(partials))
		return;
	if (partials->filling || partials->committing || partials_turning(partials) ||
	    partials->count[PARTIAL_RESERVED])
		return;
	if (partials->step == TABLE_OFF || dev->read_only) {
		tell(partials, 0);
	} else if (dev->aborted || partials->error) {
		tell(partials, dev->aborted ? -EIO : partials->error);
	} else if (partials->count[PARTIAL_LIVE]) {
		return; /* somebody writes to those that are left */
	} else if (partials->count[PARTIAL_DONE] || partials->count[PARTIAL_RETIRING]) {
		partials->committing = true;
		partials->settled.done = settle_committed;
		commit_wait(&partials->writer->commit, &partials->settled);
	} else {
		partials_turn(partials, false);
	}
}

/* The extension may become another one: nobody else is about to change it, or the top. */
static bool may_replant(const struct partials *partials)
{
	const struct device *dev = partials->device;

	return partials->replant && !partials_turning(partials) && !partials->committing && !dev->aborted &&
	       !dev->under && (!dev->job || dev->job->calm);
}

static void run(struct loop_task *task)
{
	struct partials *partials = container_of(task, struct partials, task);

	start_fills(partials);
	arm(partials);
	if (may_replant(partials))
		partials_replant(partials);
	else if (partials->replant && partials->device->aborted && !partials_turning(partials))
		partials_refuse_plants(partials, -EIO);
	if (settling(partials))
		settle_step(partials);
}

void partials_poke(struct partials *partials)
{
	loop_defer(partials->device->loop, &partials->task);
}

void device_settle(struct device *dev, struct device_settle *settle)
{
	struct partials *partials = dev->partials;

	if (!partials->holds++) {
		partials->few_yet = partials->count[PARTIAL_LIVE] > SETTLE_FEW;
		partials->round = partials->count[PARTIAL_LIVE];
		partials->round_filled = 0;
	}
	partials->error = 0;
	list_push_back(&partials->settling, &settle->node);
	partials_poke(partials);
}

void device_unsettle(struct device *dev)
{
	dev->partials->holds--;
}

void partials_init_fills(struct partials *partials)
{
	partials->timer.expired = tick;
	partials->task.run = run;
	for (unsigned i = 0; i < PARTIAL_FILLS; i++) {
		partials->fills[i].partials = partials;
		partials->fills[i].op.done = fill_done;
	}
}

void partials_fini_fills(struct partials *partials)
{
	if (partials->timer.armed)
		loop_timer_cancel(partials->device->loop, &partials->timer);
	for (unsigned i = 0; i < PARTIAL_FILLS; i++)
		if (partials->fills[i].buffer)
			io_buffer_free(partials->fills[i].buffer, chunk_size(partials->device));
}
