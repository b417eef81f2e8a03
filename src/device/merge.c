/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * merge.c - the data of upper levels comes into a lower one, while requests go on.
 *
 * Two kinds:
 *
 *	LOWER  levels low+1 .. high, none of them the top: nobody writes to them. Their data is copied, batch by batch, into
 *	       `low`; at the end, with the gate closed for a moment, the map is turned to it and the levels are gone.
 *	TOP    the top, which lies just above `low`. A border moves up the disk: below it requests go to `low` already, above
 *	       it to the top. One batch at a time is locked against writes and carried over the border:
 *	           COPY    its clusters are copied into `low`
 *	           SETTLE  `low` is committed: data, index
 *	           CLEAR   the map is turned to `low`, and the top without those entries is committed
 *	           FORGET  nobody reads the top's clusters any more: they are free
 *	       At the end nothing is mapped by the top, and with the gate closed for a moment `low` becomes the top.
 *
 * Before either, `low` becomes as large as what comes into it (merge-size.c).
 *
 * Order of writes:
 *  1. LOWER: an entry of `low` is written only when its data is durable (commit.c). What it says is covered by the levels
 *     above until they are gone, and these never change: cut off anywhere, the stack in the files is the same disk.
 *  2. TOP: an entry of the top is cleared only when the data and the entry in `low` are durable (SETTLE before CLEAR). Requests
 *     write to `low` in place of the top only where the top's entry is durably clear: the border moves after CLEAR, and the
 *     lock is held until then. So neither an old entry of the top can cover newer data, nor can data be missing.
 *  3. Until the end no cluster becomes partial (partial.h): what it lacks is read from below, by a table that knows of no merge.
 *  4. The files of the merged levels are left as they are (the top: with an empty index), until the caller has changed what
 *     names them.
 * A merge that ends early leaves the border where it is: the device goes on with two writers, and a later merge goes on.
 *
 * One call never does both kinds: below the border requests write to `low`, so that no level between it and the top may be left
 * in what names the files, and to change that is the caller's affair.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "device/merge.h"

#define LOWER_BATCH (UINT64_C(256) << 20) /* bytes copied between two commits */
#define TOP_FIRST (UINT64_C(16) << 20)    /* bytes locked at a time, until it is known how long that takes */
#define TOP_LEAST (UINT64_C(1) << 20)
#define TOP_MOST (UINT64_C(64) << 20)
#define TOP_NS UINT64_C(100000000) /* writers shall not wait longer for a batch */
#define TOP_SPAN 65536u                   /* clusters locked at a time */
#define SECOND UINT64_C(1000000000)

/* The task does the next step outside whatever called: it may free what is still in use below us. */
static void merge_later(struct device_merge *merge, enum merge_step step)
{
	merge->step = step;
	loop_defer(merge->device->loop, &merge->task);
}

static void merge_wait_commit(struct device_merge *merge, struct writer *writer, enum merge_step step)
{
	merge->step = step;
	commit_wait(&writer->commit, &merge->waiter);
}

void merge_free(struct device_merge *merge)
{
	map_fini(&merge->sources);
	if (merge->buffers)
		io_buffer_free(merge->buffers, (size_t)MERGE_COPIES * COPY_CHUNK);
	free(merge);
}

/* Over, as soon as nobody uses the file that `low` had before. */
static void merge_end(struct device_merge *merge)
{
	struct device *dev = merge->device;
	void (*done)(void *data, int result) = merge->done;
	void *data = merge->data;
	int result = merge->result;

	merge->step = MERGE_OVER;
	if (lock_file_in_flight(dev, merge->old_file))
		return;
	dev->merge = NULL;
	merge_free(merge);
	job_end(dev, done, data, result);
}

/* Fails or is stopped, with no copy under way. LOWER leaves no trace in the device, TOP its border. */
static void merge_fail(struct device_merge *merge, int result)
{
	struct device *dev = merge->device;

	merge->result = result;
	if (dev->gated)
		gate_open(dev);
	if (merge->locked)
		lock_release(dev, &merge->lock);
	merge->locked = false;
	/* A commit that nobody asked for may be under way. */
	merge_wait_commit(merge, merge->target, MERGE_QUIT);
}

static void merge_quit(struct device_merge *merge)
{
	struct device *dev = merge->device;

	if (!dev->under_end) {
		/* Entries that were written say what the levels above say, and merge_copied() has noted that they are there. */
		if (merge->committed)
			writer_finish(dev->under);
		writer_free(dev->under);
		dev->under = NULL;
	}
	merge_end(merge);
}

/* Nothing is under way at all. */
static void merge_turn(struct device_merge *merge)
{
	struct device *dev = merge->device;
	struct writer *over = merge->target; /* the one that nobody needs any more */

	if (commit_busy(&merge->target->commit) || (merge->top && commit_busy(&dev->writer->commit))) {
		merge_wait_commit(merge, merge->target, MERGE_LAST);
		return;
	}
	if (merge->top)
		over = merge_turn_top(merge);
	else
		merge_turn_lower(merge);
	gate_open(dev);
	if (!merge->top)
		dev->under = NULL;
	/* All data is durable. A mark that cannot be cleared is no worse than after a crash. */
	writer_finish(over);
	writer_free(over);
	merge_later(merge, MERGE_OVER);
}

static void merge_drain(struct device_merge *merge)
{
	merge->step = MERGE_DRAIN;
	gate_close(merge->device);
	job_poke(merge->device);
}

/* TOP: `low` is durable; turns the map of the batch, and lets the top forget it. */
static void merge_clear(struct device_merge *merge)
{
	struct device *dev = merge->device;
	unsigned level = device_top_level(dev);

	for (uint32_t v = merge->lock.first; v <= merge->lock.last; v++) {
		if (!map_in(&dev->map, v, level))
			continue;
		merge->gone[merge->ngone++] = dev->map.cluster[v];
		merge_turn_map(merge, v);
		commit_dirty(&dev->writer->commit, v);
	}
	merge_wait_commit(merge, dev->writer, MERGE_CLEAR);
}

/* TOP: the next batch is as large as can be done before writers have waited too long. */
static void merge_pace(struct device_merge *merge)
{
	uint64_t took = loop_now(merge->device->loop) - merge->locked_at;

	if (took > TOP_NS)
		merge->batch = max_u64(merge->batch / 2, TOP_LEAST);
	else if (took < TOP_NS / 2)
		merge->batch = min_u64(merge->batch * 2, TOP_MOST);
}

/* TOP: the batch is over the border, when the last reads of what the top held there are over. */
static void merge_cleared(struct device_merge *merge)
{
	struct device *dev = merge->device;

	merge->step = MERGE_FORGET;
	merge->lock.reads = true;
	if (lock_in_flight(dev, merge->lock.first, merge->lock.last))
		return;
	for (unsigned i = 0; i < merge->ngone; i++)
		alloc_free(&dev->writer->alloc, merge->gone[i], false);
	merge->ngone = 0;
	merge_pace(merge);
	if (!merge->target->delta->format->has_index)
		merge_map_raw(merge);
	dev->under_end = merge->lock.last + 1;
	merge->locked = false;
	merge_later(merge, MERGE_BATCH);
	lock_release(dev, &merge->lock);
}

static void merge_committed(struct device_commit_waiter *waiter, int result)
{
	struct device_merge *merge = container_of(waiter, struct device_merge, waiter);

	merge->committed = !result;
	if (merge->step == MERGE_QUIT)
		merge_later(merge, MERGE_QUIT);
	else if (result)
		merge_fail(merge, result);
	else if (merge->step == MERGE_CLEAR)
		merge_cleared(merge);
	else if (merge->step == MERGE_LAST && merge->top)
		merge_wait_commit(merge, merge->device->writer, MERGE_LAST_TOP);
	else if (merge->step == MERGE_LAST || merge->step == MERGE_LAST_TOP)
		merge_later(merge, MERGE_TURN);
	else if (merge->top)
		merge_clear(merge);
	else
		merge_later(merge, MERGE_BATCH);
}

void merge_settle(struct device_merge *merge)
{
	if (merge->result)
		merge_fail(merge, merge->result);
	else if (merge->copied)
		merge_wait_commit(merge, merge->target, MERGE_SETTLE);
	else if (merge->top)
		merge_cleared(merge);
	else
		merge_later(merge, MERGE_BATCH);
}

/* Where a batch that starts at `v` ends: after so many bytes to copy, at `limit` at the latest. */
static uint32_t merge_batch_end(const struct device_merge *merge, uint32_t v, uint32_t limit)
{
	uint64_t most = merge->top ? merge->batch : LOWER_BATCH, bytes = 0;
	uint32_t cluster;

	while (v < limit && bytes < most)
		bytes += merge_source(merge, v++, &cluster) ? merge->device->cluster : 0;
	return v;
}

static void merge_choose(struct device_merge *merge)
{
	uint32_t limit = merge->device->map.count;

	if (merge->top)
		limit = (uint32_t)min_u64(limit, (uint64_t)merge->end + TOP_SPAN);
	merge->next = merge->end;
	merge->end = merge_batch_end(merge, merge->next, limit);
	merge->copied = false;
}

/* TOP: goes on when nothing is under way in the batch any more. What was may have made it larger: then it ends earlier. */
static void merge_alone(struct device_merge *merge)
{
	if (!lock_alone(merge->device, &merge->lock))
		return;
	merge->end = merge_batch_end(merge, merge->next, merge->end);
	merge->lock.last = merge->end - 1;
	merge->step = MERGE_COPY;
	merge_copy(merge);
}

/* When this batch may begin, given the rate; 0 now. */
static uint64_t merge_delay(const struct device_merge *merge)
{
	uint64_t due, now = loop_now(merge->device->loop);

	if (!merge->rate)
		return 0;
	due = merge->started + (uint64_t)((double)merge->moved / (double)merge->rate * (double)SECOND);
	return due > now ? due - now : 0;
}

static void merge_batch(struct device_merge *merge)
{
	struct device *dev = merge->device;
	uint64_t delay = merge_delay(merge);

	if (merge->stopped || dev->closing) {
		merge_fail(merge, -ECANCELED);
	} else if (merge->paused || delay) {
		merge->step = MERGE_PAUSED;
		if (!merge->paused)
			loop_timer_set(dev->loop, &merge->timer, delay);
	} else if (merge->end == dev->map.count) {
		merge_drain(merge);
	} else if (merge->top) {
		merge_choose(merge);
		merge->step = MERGE_ALONE;
		merge->locked = true;
		merge->locked_at = loop_now(dev->loop);
		lock_take(dev, &merge->lock, merge->next, merge->end - 1, false);
		merge_alone(merge);
	} else {
		merge_choose(merge);
		merge->step = MERGE_COPY;
		merge_copy(merge);
	}
}

static void merge_run(struct loop_task *task)
{
	struct device_merge *merge = container_of(task, struct device_merge, task);

	switch (merge->step) {
	case MERGE_BATCH:
		merge_batch(merge);
		break;
	case MERGE_TURN:
		merge_turn(merge);
		break;
	case MERGE_QUIT:
		merge_quit(merge);
		break;
	case MERGE_OVER:
		merge_end(merge);
		break;
	default:
		break;
	}
}

static void merge_expired(struct loop_timer *timer)
{
	merge_later(container_of(timer, struct device_merge, timer), MERGE_BATCH);
}

static void merge_poke(struct device_job *job)
{
	struct device_merge *merge = container_of(job, struct device_merge, job);

	if (merge->step == MERGE_FIT)
		refit_poke(&merge->refit);
	else if (merge->step == MERGE_ALONE)
		merge_alone(merge);
	else if (merge->step == MERGE_FORGET)
		merge_cleared(merge);
	else if (merge->step == MERGE_OVER)
		merge_later(merge, MERGE_OVER);
	else if (merge->step == MERGE_DRAIN && list_empty(&merge->device->active))
		merge_wait_commit(merge, merge->target, MERGE_LAST);
}

static void merge_stop(struct device_job *job)
{
	struct device_merge *merge = container_of(job, struct device_merge, job);

	merge->stopped = true;
	if (merge->step == MERGE_FIT)
		refit_stop(&merge->refit);
	device_merge_pause(merge->device, false);
}

void merge_fitted(struct device_merge *merge, int result)
{
	const struct device *dev = merge->device;

	if (result) {
		merge_fail(merge, result);
		return;
	}
	if (merge->top)
		merge->next = merge->end = dev->under_end;
	for (uint32_t v = merge->end; merge->top && v < dev->map.count; v++)
		merge->total += map_in(&dev->map, v, device_top_level(dev)) ? dev->cluster : 0;
	merge_later(merge, MERGE_BATCH);
}

static void merge_begin(struct device_job *job, int result)
{
	struct device_merge *merge = container_of(job, struct device_merge, job);

	if (result || !merge->fits) {
		merge_fitted(merge, result);
		return;
	}
	merge->step = MERGE_FIT;
	refit_begin(&merge->refit);
	refit_run(&merge->refit);
}

void merge_init(struct device_merge *merge)
{
	merge->waiter.done = merge_committed;
	merge->timer.expired = merge_expired;
	merge->task.run = merge_run;
	merge->job = (struct device_job){ .name = "a merge", .begin = merge_begin, .poke = merge_poke, .stop = merge_stop };
	merge->batch = TOP_FIRST;
	merge_copy_init(merge);
}

void device_merge_stop(struct device *device)
{
	if (device->merge)
		merge_stop(&device->merge->job);
}

void device_merge_pause(struct device *device, bool paused)
{
	struct device_merge *merge = device->merge;

	if (!merge)
		return;
	merge->paused = paused;
	if (paused || merge->step != MERGE_PAUSED)
		return;
	if (merge->timer.armed)
		loop_timer_cancel(device->loop, &merge->timer);
	merge_later(merge, MERGE_BATCH);
}

bool device_merge_progress(const struct device *device, uint64_t *ret_total, uint64_t *ret_done)
{
	if (!device->merge)
		return false;
	*ret_total = device->merge->total;
	*ret_done = device->merge->moved;
	return true;
}
