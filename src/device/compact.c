/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * compact.c - a file becomes shorter: clusters move from its end into free ones, and the end is cut off.
 *
 *	PLAN    how many clusters are used: so many the file needs, and what lies behind is to be moved
 *	MOVE    a batch moves (relocate.c), the last clusters of the file first
 *	SETTLE  a commit: the new places are durable, the old ones free
 *	        the free end is cut off
 *	PAUSED  between batches: as the rate wants it, or a rest for requests
 *	PUNCH   free clusters inside that may hold blocks give them back, some at a time
 *	LAST    a commit: the length is durable
 *	OVER    a level below the top: waits until nobody reads the file that the device had before
 *
 * Order of writes: that of relocate.c and of commits. The file is cut only behind the last cluster that is used, and a cluster is
 * used until the entry that named it is durably gone (alloc.h). A crash anywhere leaves a right image, and less to do.
 *
 * A level below the top is written to for the time: it is marked in use before the first write and unmarked after the last, as a
 * merge does it. What it holds stays the same, wherever it lies.
 *
 * Requests go on, and may map clusters at the end meanwhile: so it is planned anew until nothing is gained any more.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/pace.h"
#include "device/relocate.h"

/* Bytes moved between two commits, or given back at a time. */
#define BATCH_FIRST (UINT64_C(4) << 20)
#define BATCH_LEAST (UINT64_C(1) << 20)
#define BATCH_MOST (UINT64_C(32) << 20)
#define PLANS 8
#define SECOND UINT64_C(1000000000)

enum compact_step {
	COMPACT_FIRST,
	COMPACT_PLAN,
	COMPACT_MOVE,
	COMPACT_SETTLE,
	COMPACT_PAUSED,
	COMPACT_PUNCH,
	COMPACT_LAST,
	COMPACT_OVER
};

struct device_compact {
	struct device *device;
	struct device_job job;
	struct writer *writer;
	enum compact_step step;
	struct device_compact_config config;
	struct io_file *old_file; /* of a level below the top; NULL: it is the top */
	struct relocate relocate;
	bool relocating;
	unsigned plans;
	uint64_t total, moved, started;
	uint64_t batch; /* bytes; as many as take little enough time */
	struct pace pace;
	enum compact_step next; /* after PAUSED */
	uint64_t punch;         /* next cluster to look at; how many are being punched */
	uint32_t punching;
	struct device_commit_waiter waiter;
	struct io_op op;
	struct loop_task task;
	struct loop_timer timer;
	bool paused, stopped;
	int result;
};

static void compact_later(struct device_compact *compact, enum compact_step step)
{
	compact->step = step;
	loop_defer(compact->device->loop, &compact->task);
}

static void compact_commit(struct device_compact *compact, enum compact_step step)
{
	compact->step = step;
	commit_wait(&compact->writer->commit, &compact->waiter);
}

/* Over, as soon as nobody uses the file that a lower level had before. */
static void compact_end(struct device_compact *compact)
{
	struct device_compact_config config = compact->config;
	struct device *dev = compact->device;
	int result = compact->result;

	compact->step = COMPACT_OVER;
	if (compact->old_file && lock_file_in_flight(dev, compact->old_file))
		return;
	(void)device_compact_progress(dev, &dev->compact_total, &dev->compact_moved);
	free(compact);
	dev->compact = NULL;
	job_end(dev, config.done, config.data, result);
}

/* All is durable. A mark that cannot be cleared is no worse than after a crash. */
static void compact_finish(struct device_compact *compact)
{
	struct device *dev = compact->device;

	if (commit_busy(&compact->writer->commit)) {
		compact_commit(compact, COMPACT_LAST);
		return;
	}
	if (compact->old_file) {
		if (!dev->aborted)
			(void)writer_finish(compact->writer);
		dev->under = NULL;
		writer_free(compact->writer);
	}
	compact_end(compact);
}

static void compact_over(struct device_compact *compact, int result)
{
	if (compact->relocating)
		relocate_fini(&compact->relocate);
	compact->relocating = false;
	compact->result = result;
	compact_commit(compact, COMPACT_LAST);
}

/* The length of the file in clusters that is aimed at. */
static uint64_t compact_aim(const struct device_compact *compact)
{
	const struct alloc *alloc = &compact->writer->alloc;
	const struct geometry *g = &compact->writer->delta->geometry;
	uint64_t wanted = compact->config.target, needed = alloc->first + alloc_count(alloc);

	if ((int64_t)wanted <= g->base)
		return needed;
	return max_u64(needed, (uint64_t)((int64_t)wanted - g->base) / g->cluster);
}

static uint64_t compact_to_move(const struct device_compact *compact, uint64_t from)
{
	const struct bitmap *used = &compact->writer->alloc.used;
	uint64_t count = 0;

	for (uint64_t k = bitmap_next_set(used, from); k < used->bits; k = bitmap_next_set(used, k + 1))
		count++;
	return count * compact->device->cluster;
}

static void compact_moved(struct relocate *relocate, int result)
{
	struct device_compact *compact = container_of(relocate, struct device_compact, relocate);

	if (result && !compact->result)
		compact->result = result;
	compact_commit(compact, COMPACT_SETTLE);
}

/* --- in turns --- */

static void compact_begin_turn(struct device_compact *compact)
{
	struct device *dev = compact->device;

	pace_begin(&compact->pace, loop_now(dev->loop), dev->stats.bio_in);
}

/* When the next turn may begin: ns from now. */
static uint64_t compact_delay(struct device_compact *compact)
{
	struct device *dev = compact->device;
	uint64_t now = loop_now(dev->loop), rate = compact->config.bytes_a_second, due;

	compact->batch = pace_size(compact->batch, now - compact->pace.at, BATCH_LEAST, BATCH_MOST);
	if (!rate)
		return pace_end(&compact->pace, now, dev->stats.bio_in, !list_empty(&dev->active));
	due = compact->started + (uint64_t)((double)compact->moved / (double)rate * (double)SECOND);
	return due > now ? due - now : 0;
}

/* After a turn. */
static void compact_rest(struct device_compact *compact, enum compact_step next)
{
	uint64_t delay = compact_delay(compact);

	if (!delay) {
		compact_later(compact, next);
		return;
	}
	compact->next = next;
	compact->step = COMPACT_PAUSED;
	loop_timer_set(compact->device->loop, &compact->timer, delay);
}

static void compact_plan(struct device_compact *compact)
{
	const struct alloc *alloc = &compact->writer->alloc;
	uint64_t aim = compact_aim(compact), end = alloc_end(alloc);

	if (aim >= end || compact->plans++ == PLANS) {
		/* Nothing was moved, perhaps: the free end is there all the same. */
		int r = writer_cut_tail(compact->writer);

		if (r) {
			compact_over(compact, r);
			return;
		}
		compact->punch = alloc->first;
		compact_later(compact, COMPACT_PUNCH);
		return;
	}
	compact->total = compact->moved + compact_to_move(compact, aim);
	compact->relocate = (struct relocate){ .writer = compact->writer,
					       .from = (uint32_t)aim,
					       .end = (uint32_t)end,
					       .below = (uint32_t)aim,
					       .done = compact_moved };
	if (relocate_init(&compact->relocate)) {
		compact_over(compact, -ENOMEM);
		return;
	}
	compact->relocating = true;
	compact_later(compact, COMPACT_MOVE);
}

static void compact_move(struct device_compact *compact)
{
	uint64_t rate = compact->config.bytes_a_second;

	compact_begin_turn(compact);
	relocate_run(&compact->relocate, rate ? max_u64(1, min_u64(compact->batch, rate / 4)) : compact->batch);
}

/* The batch is durable. */
static void compact_settled(struct device_compact *compact)
{
	uint64_t gained = compact->relocate.moved;
	int r = writer_cut_tail(compact->writer);

	compact->moved += gained;
	compact->relocate.moved = 0;
	device_written(compact->device);
	if (r || compact->result) {
		compact_over(compact, compact->result ? compact->result : r);
		return;
	}
	if (!relocate_over(&compact->relocate)) {
		compact_rest(compact, COMPACT_MOVE);
		return;
	}
	relocate_fini(&compact->relocate);
	compact->relocating = false;
	compact_later(compact, COMPACT_PLAN);
}

/* --- blocks of free clusters --- */

static void compact_punched(struct io_op *op, int result)
{
	struct device_compact *compact = container_of(op, struct device_compact, op);
	struct alloc *alloc = &compact->writer->alloc;

	device_written(compact->device);
	alloc_return(alloc, (uint32_t)compact->punch, compact->punching, !result);
	compact->punch += compact->punching;
	compact_rest(compact, COMPACT_PUNCH);
}

static void compact_punch(struct device_compact *compact)
{
	struct alloc *alloc = &compact->writer->alloc;
	const struct geometry *g = &compact->writer->delta->geometry;
	struct io_op *op = &compact->op;
	uint32_t at;

	compact_begin_turn(compact);
	compact->punching =
		alloc_take_stale(alloc, compact->punch, (uint32_t)max_u64(1, compact->batch / g->cluster), &at);
	if (!compact->punching) {
		compact_over(compact, 0);
		return;
	}
	compact->punch = at;
	op->kind = IO_PUNCH;
	op->file = compact->writer->delta->file;
	op->offset = geometry_offset(g, at);
	op->length = (uint64_t)compact->punching * g->cluster;
	op->done = compact_punched;
	device_io(compact->device, op);
}

static void compact_committed(struct device_commit_waiter *waiter, int result)
{
	struct device_compact *compact = container_of(waiter, struct device_compact, waiter);

	if (compact->step == COMPACT_LAST) {
		compact->result = compact->result ? compact->result : result;
		loop_defer(compact->device->loop, &compact->task);
		return;
	}
	if (result && !compact->result)
		compact->result = result;
	if (compact->step == COMPACT_FIRST)
		compact_later(compact, COMPACT_PLAN);
	else
		compact_settled(compact);
}

static void compact_task(struct loop_task *task)
{
	struct device_compact *compact = container_of(task, struct device_compact, task);

	if (compact->step == COMPACT_OVER) {
		compact_end(compact);
		return;
	}
	if (compact->step == COMPACT_LAST) {
		compact_finish(compact);
		return;
	}
	if (compact->result || compact->stopped) {
		compact_over(compact, compact->result ? compact->result : -ECANCELED);
		return;
	}
	if (compact->paused) {
		compact->next = compact->step;
		compact->step = COMPACT_PAUSED;
		return;
	}
	if (compact->step == COMPACT_PLAN)
		compact_plan(compact);
	else if (compact->step == COMPACT_MOVE)
		compact_move(compact);
	else if (compact->step == COMPACT_PUNCH)
		compact_punch(compact);
}

static void compact_expired(struct loop_timer *timer)
{
	struct device_compact *compact = container_of(timer, struct device_compact, timer);

	compact_later(compact, compact->next);
}

static void compact_begin(struct device_job *job, int result)
{
	struct device_compact *compact = container_of(job, struct device_compact, job);

	compact->result = result;
	/* It cannot be moved; it comes back when all is over (cbt.h). */
	if (compact->writer->heir)
		writer_drop_extension(compact->writer);
	/* What was freed lately is free after it. */
	compact_commit(compact, COMPACT_FIRST);
}

static void compact_poke(struct device_job *job)
{
	struct device_compact *compact = container_of(job, struct device_compact, job);

	if (compact->relocating)
		relocate_poke(&compact->relocate);
	else if (compact->step == COMPACT_OVER)
		compact_later(compact, COMPACT_OVER);
}

static void compact_stop(struct device_job *job)
{
	struct device_compact *compact = container_of(job, struct device_compact, job);

	compact->stopped = true;
	if (compact->relocating)
		relocate_stop(&compact->relocate);
	device_compact_pause(compact->device, false);
}

void device_compact_stop(struct device *device)
{
	if (device->compact)
		compact_stop(&device->compact->job);
}

void device_compact_pause(struct device *device, bool paused)
{
	struct device_compact *compact = device->compact;

	if (!compact)
		return;
	compact->paused = paused;
	if (paused || compact->step != COMPACT_PAUSED)
		return;
	if (compact->timer.armed)
		loop_timer_cancel(device->loop, &compact->timer);
	compact_later(compact, compact->next);
}

bool device_compact_progress(const struct device *device, uint64_t *ret_total, uint64_t *ret_done)
{
	const struct device_compact *compact = device->compact;

	*ret_total = device->compact_total;
	*ret_done = device->compact_moved;
	if (!compact)
		return false;
	*ret_done = compact->moved + compact->relocate.moved;
	*ret_total = max_u64(compact->total, *ret_done);
	return true;
}

static int compact_check(const struct device *dev, const struct device_compact_config *config, struct ploop_error *err)
{
	int r = job_check(dev, "it cannot be compacted", err);

	if (r)
		return r;
	if (dev->under)
		return error_set(err, -EBUSY, PLOOP_EXIT_BUSY, "a merge was stopped half-way; let it end first");
	if (config->level >= dev->nlevels)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "there is no level %u in a stack of %u deltas",
				 config->level, dev->nlevels);
	if (!dev->levels[config->level].format->has_index)
		return error_set(err, -EOPNOTSUPP, PLOOP_EXIT_PARAM, "%s: a raw image cannot be compacted",
				 dev->levels[config->level].file->path);
	return writer_check(&dev->levels[config->level], err);
}

/* A level below the top becomes one that is written to. */
static int compact_open_level(struct device_compact *compact, struct ploop_error *err)
{
	struct device *dev = compact->device;
	unsigned level = compact->config.level;
	int r;

	compact->writer = dev->writer;
	if (level == device_top_level(dev))
		return 0;
	compact->old_file = dev->levels[level].file;
	dev->levels[level].file = compact->config.file;
	r = writer_open_lower(dev, level, false, &compact->writer, err);
	if (r)
		dev->levels[level].file = compact->old_file;
	else
		dev->under = compact->writer;
	return r;
}

int device_compact(struct device *dev, const struct device_compact_config *config, struct ploop_error *err)
{
	struct device_compact *compact;
	int r = compact_check(dev, config, err);

	if (r)
		return r;
	compact = calloc(1, sizeof(*compact));
	if (!compact)
		return error_set(err, -ENOMEM, PLOOP_EXIT_MALLOC, "no memory to compact");
	compact->device = dev;
	compact->config = *config;
	compact->batch = BATCH_FIRST;
	r = compact_open_level(compact, err);
	if (r) {
		free(compact);
		return r;
	}
	compact->started = loop_now(dev->loop);
	compact->waiter.done = compact_committed;
	compact->task.run = compact_task;
	compact->timer.expired = compact_expired;
	compact->job = (struct device_job){ .name = "a compaction", .begin = compact_begin, .poke = compact_poke, .stop = compact_stop };
	dev->compact = compact;
	job_begin(dev, &compact->job);
	return 0;
}
