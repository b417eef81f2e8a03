/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * commit.c - how the index reaches the disk.
 *
 * The map in memory is always ahead of the index in the file. A commit brings the file up to date:
 *
 *	IDLE --> SYNC --> PAGES --> SYNC --> PAGES ... --> LAST --> IDLE
 *	           \_____________________________________________/
 *	                        (no index page is dirty)
 *
 * Order of writes, which everything else in the engine relies on:
 *  1. An entry enters the map only when the data of its cluster has been written (write.c), so a page encoded from the map
 *     names only clusters whose writes are finished.
 *  2. A page is encoded first, then the file is synced (SYNC), then the page is written (PAGES). So an index entry never
 *     reaches the disk before the data it points to. Entries that enter the map after the encoding wait for the next sweep.
 *  3. All pages are written before the last sync (LAST), and a request is done only after it.
 *  4. A cluster whose entry was removed before the commit started is free after LAST, not before: nobody can write to it
 *     while an old entry on disk still points there.
 *  5. Pages of the table of partial clusters (partial.h) are encoded and written with those of the index: what they call
 *     valid is durable before them. A page of either kind is right whichever others reach the disk.
 *  6. When a sync or the write of a page fails for good, the device aborts: what the disk holds is unknown, so nothing more
 *     is written and the in-use mark stays.
 * A page is written whole, but each entry is inside one sector: a torn page is a mix of old and new entries, each of which
 * is valid by 1 and 4.
 */
#include "device/commit.h"

#include <errno.h>
#include <string.h>

#include "base/le.h"
#include "device/internal.h"

#define COMMIT_DELAY_NS (5 * UINT64_C(1000000000))

enum commit_state { COMMIT_IDLE, COMMIT_SYNC, COMMIT_WRITE, COMMIT_LAST };

static void commit_start(struct commit *commit);
static void commit_sweep(struct commit *commit);

/* The bytes of an index page as the map has them. */
static void commit_encode(const struct commit *commit, uint64_t page, uint8_t *bytes)
{
	const struct delta *delta = commit->writer->delta;
	const struct geometry *g = &delta->geometry;
	uint32_t end = geometry_page_end(g, page);

	memset(bytes, 0, FORMAT_PAGE);
	if (!page)
		memcpy(bytes, commit->head, g->index);
	for (uint32_t v = geometry_page_first(g, page); v < end; v++) {
		uint32_t cluster = writer_entry(commit->writer, v);

		if (cluster)
			le32_put(bytes + (g->index + 4 * (uint64_t)v) % FORMAT_PAGE, delta->format->encode(g, cluster));
	}
}

/* Something is to be written. */
static bool commit_dirt(const struct commit *commit)
{
	return commit->dirty.set || partials_dirty(commit->writer);
}

static void commit_arm(struct commit *commit)
{
	if (!commit->timer.armed)
		loop_timer_set(commit->device->loop, &commit->timer, COMMIT_DELAY_NS);
}

static void commit_tell(struct device_commit_waiter *waiter, int result)
{
	waiter->done(waiter, result);
}

static void commit_finish(struct commit *commit)
{
	struct device *dev = commit->device;
	struct list done;
	struct list *node;
	int result = dev->aborted ? -EIO : commit->result;

	commit->state = COMMIT_IDLE;
	if (!result) {
		commit->synced = commit->syncing;
		alloc_commit_done(&commit->writer->alloc);
		partials_commit_done(commit->writer);
	}
	list_init(&done);
	list_move_all(&done, &commit->committing);
	while ((node = list_pop(&done)) != NULL)
		commit_tell(container_of(node, struct device_commit_waiter, node), result);
	if (commit->state != COMMIT_IDLE)
		return;
	if (commit->wanted || !list_empty(&commit->waiting))
		commit_start(commit);
	else if (commit_dirt(commit) && !dev->aborted)
		commit_arm(commit);
}

static void commit_failed(struct commit *commit, int result)
{
	commit->result = result;
	device_abort(commit->device);
	commit_finish(commit);
}

static void commit_submit_sync(struct commit *commit, enum commit_state state)
{
	struct device *dev = commit->device;

	commit->state = state;
	commit->sync.kind = IO_DATASYNC;
	commit->sync.file = commit->writer->delta->file;
	dev->stats.bio_fsync++;
	device_io(dev, &commit->sync);
}

static void commit_page_done(struct io_op *op, int result)
{
	struct commit *commit = container_of(op, struct commit_page, op)->commit;

	if (stall_op(commit->device, op, result))
		return;
	if (result && !commit->result)
		commit->result = result;
	if (--commit->pages)
		return;
	if (commit->result)
		commit_failed(commit, commit->result);
	else
		commit_sweep(commit);
}

/* Writes what commit_sweep() encoded: commit->pages operations. */
static void commit_write_pages(struct commit *commit)
{
	unsigned count = commit->pages;

	commit->state = COMMIT_WRITE;
	for (unsigned i = 0; i < count; i++)
		device_io(commit->device, &commit->page[i].op);
}

/* The next dirty page of the index, or else of the table of partial clusters, and where it goes. False: all are swept. */
static bool commit_next_page(struct commit *commit, uint8_t *bytes, uint64_t *ret_offset)
{
	uint64_t page = bitmap_next_set(&commit->dirty, commit->sweep);

	commit->sweep = page;
	if (page == commit->dirty.bits)
		return partials_encode(commit->writer, bytes, ret_offset);
	commit->sweep++;
	bitmap_clear(&commit->dirty, page);
	commit_encode(commit, page, bytes);
	*ret_offset = page * FORMAT_PAGE;
	return true;
}

/* Takes the next batch of dirty pages; adjacent ones go in one operation. The batch is written after a sync. */
static void commit_sweep(struct commit *commit)
{
	struct device *dev = commit->device;
	uint64_t offset;
	unsigned used;

	commit->pages = 0;
	for (used = 0; used < COMMIT_PAGES; used++) {
		uint8_t *bytes = (uint8_t *)commit->buffer + (size_t)used * FORMAT_PAGE;
		struct io_op *last = commit->pages ? &commit->page[commit->pages - 1].op : NULL;

		if (!commit_next_page(commit, bytes, &offset))
			break;
		dev->stats.map_single_writes++;
		if (last && last->offset + last->length == offset) {
			last->length += FORMAT_PAGE;
			continue;
		}
		last = &commit->page[commit->pages++].op;
		last->kind = IO_WRITE;
		last->file = commit->writer->delta->file;
		last->offset = offset;
		last->length = FORMAT_PAGE;
		last->buffer = bytes;
	}
#ifdef DEVICE_BREAK_INDEX_FIRST
	if (used) {
		commit_write_pages(commit);
		return;
	}
#endif
	commit_submit_sync(commit, used ? COMMIT_SYNC : COMMIT_LAST);
}

static void commit_sync_done(struct io_op *op, int result)
{
	struct commit *commit = container_of(op, struct commit, sync);

	if (result)
		commit_failed(commit, result);
	else if (commit->state == COMMIT_SYNC)
		commit_write_pages(commit);
	else
		commit_finish(commit);
}

static void commit_start(struct commit *commit)
{
	struct device *dev = commit->device;

	list_move_all(&commit->committing, &commit->waiting);
	commit->wanted = false;
	commit->result = 0;
	loop_timer_cancel(dev->loop, &commit->timer);
	if (dev->aborted || dev->read_only ||
	    (commit->written == commit->synced && !commit_dirt(commit) && !commit->writer->alloc.freed.set)) {
		dev->stats.bio_flush_skip++;
		commit->syncing = commit->synced;
		commit_finish(commit);
		return;
	}
	dev->stats.bio_flush_out++;
	commit->syncing = commit->written;
	commit->sweep = 0;
	alloc_commit_start(&commit->writer->alloc);
	partials_commit_start(commit->writer);
	commit_sweep(commit);
}

static void commit_expired(struct loop_timer *timer)
{
	commit_kick(container_of(timer, struct commit, timer));
}

void commit_touch(struct commit *commit)
{
	if (commit->state == COMMIT_IDLE)
		commit_arm(commit);
}

void commit_dirty(struct commit *commit, uint32_t v)
{
	if (!commit->writer->delta->format->has_index)
		return;
#ifndef DEVICE_BREAK_SHADOW
	if (commit->writer->shadow)
		shadow_note(commit->writer->shadow, v, writer_entry(commit->writer, v));
#endif
	bitmap_set(&commit->dirty, geometry_page_of(&commit->writer->delta->geometry, v));
	commit_touch(commit);
}

void commit_wait(struct commit *commit, struct device_commit_waiter *waiter)
{
	list_push_back(&commit->waiting, &waiter->node);
	if (commit->state == COMMIT_IDLE)
		commit_start(commit);
}

void commit_kick(struct commit *commit)
{
	commit->wanted = true;
	if (commit->state == COMMIT_IDLE)
		commit_start(commit);
}

bool commit_busy(const struct commit *commit)
{
	return !commit->device->aborted && (commit->state != COMMIT_IDLE || commit->wanted || commit_dirt(commit));
}

int commit_init(struct commit *commit, struct writer *writer)
{
	const struct delta *top = writer->delta;
	uint64_t pages = top->format->has_index ? geometry_pages(&top->geometry) : 0;

	memset(commit, 0, sizeof(*commit));
	commit->writer = writer;
	commit->device = writer->device;
	list_init(&commit->waiting);
	list_init(&commit->committing);
	commit->timer.expired = commit_expired;
	commit->sync.done = commit_sync_done;
	for (unsigned i = 0; i < COMMIT_PAGES; i++) {
		commit->page[i].commit = commit;
		commit->page[i].op.done = commit_page_done;
	}
	if (bitmap_init(&commit->dirty, pages))
		return -ENOMEM;
	commit->buffer = io_buffer_new((size_t)COMMIT_PAGES * FORMAT_PAGE);
	if (!commit->buffer)
		return -ENOMEM;
	return 0;
}

void commit_fini(struct commit *commit)
{
	if (commit->timer.armed)
		loop_timer_cancel(commit->device->loop, &commit->timer);
	bitmap_fini(&commit->dirty);
	if (commit->buffer)
		io_buffer_free(commit->buffer, (size_t)COMMIT_PAGES * FORMAT_PAGE);
	commit->buffer = NULL;
}
