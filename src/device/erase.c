/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * erase.c - discard and write zeroes: the range reads as zeros afterwards, and the host gets every block back.
 *
 *	not mapped anywhere                    nothing to do
 *	mapped below the top only              a hole of the top masks it (write.c)
 *	written in part over a lower level     the part of the top gets a hole (write.c)
 *	mapped in the top, whole, none below   the entry is removed: RELEASE, here
 *	mapped in the top, otherwise           punched in place: a piece
 *
 * RELEASE, in this order:
 *  1. The clusters are locked, for reads too, and everything in flight on them is waited for: no late write may reach a cluster
 *     that belongs to somebody else by then.
 *  2. The entries leave the map, their index pages are dirty, the lock is released. From here on the range reads as zeros.
 *  3. The clusters are punched.
 *  4. Only then they are handed to the allocator, which gives them out again after a commit that starts later is done
 *     (alloc.h): neither the punch nor an old entry on disk can hit a new owner's data.
 * A crash anywhere leaves the old entry, pointing to old data or to a hole, or no entry.
 */
#include <errno.h>

#include "base/checked.h"
#include "device/internal.h"

#define RELEASE_MAX_CLUSTERS 4096
#define RELEASE_KICK 256 /* freed clusters that make a commit worth while */

static void release_punched(struct io_op *op, int result)
{
	struct device_request *request = container_of(op, struct device_request, change.op);
	struct device *dev = request->device;
	struct device_change *change = &request->change;

	if (stall_op(dev, op, result))
		return;
	device_written(dev);
	for (uint32_t i = 0; i < change->count; i++)
		alloc_free(&change->writer->alloc, change->cluster + i, !result);
	if (change->writer->alloc.freed.set >= RELEASE_KICK)
		commit_kick(&change->writer->commit);
	change->busy = false;
	/* The range reads as zeros whether or not its blocks could be given back. */
	request_progress(request, 0);
}

static void release_unmap(struct device_request *request)
{
	struct device *dev = request->device;
	struct device_change *change = &request->change;
	struct io_op *op = &change->op;

	for (uint32_t i = 0; i < change->count; i++) {
		map_clear(&dev->map, change->first + i);
		writer_set_entry(change->writer, change->first + i, 0);
	}
	device_note(dev, (uint64_t)change->first * dev->cluster, device_cluster_end(dev, change->first + change->count - 1));
	op->kind = IO_PUNCH;
	op->file = change->writer->delta->file;
	op->offset = geometry_offset(&change->writer->delta->geometry, change->cluster);
	op->length = (uint64_t)change->count * dev->cluster;
	op->done = release_punched;
	device_io(dev, op);
	lock_release(dev, &change->lock);
}

/* Goes on when nothing is in flight on the clusters; else erase_drained() calls again. */
static void release_drain(struct device_request *request)
{
	struct device *dev = request->device;
	const struct device_lock *lock = &request->change.lock;

	if (lock_in_flight(dev, lock->first, lock->last))
		list_push_back(&dev->drainers, &request->change.op.node);
	else
		release_unmap(request);
}

void erase_drained(struct device *dev)
{
	struct list woken;
	struct list *node;

	list_init(&woken);
	list_move_all(&woken, &dev->drainers);
	while ((node = list_pop(&woken)) != NULL)
		release_drain(container_of(node, struct device_request, change.op.node));
}

/* How many clusters from v on can be released together: whole ones, in a row in the file, with nothing below. */
static uint32_t release_extent(const struct device_request *request, uint32_t v)
{
	const struct device *dev = request->device;
	uint64_t end = request->offset + request->length;
	uint32_t last = (uint32_t)((end - 1) / dev->cluster);
	uint32_t max = (uint32_t)min_u64(last - v + 1, RELEASE_MAX_CLUSTERS);
	uint32_t run = map_run(&dev->map, v, max);
	uint32_t n = 1;

	while (n < run && device_writer(dev, v + n) == device_writer(dev, v) && device_can_unmap(dev, v + n) &&
	       device_cluster_end(dev, v + n) <= end && !lock_conflict(dev, v + n, v + n, false))
		n++;
	return n;
}

static void release_begin(struct device_request *request, uint32_t v)
{
	struct device *dev = request->device;
	struct device_change *change = &request->change;

	change->writer = device_writer(dev, v);
	change->first = v;
	change->count = release_extent(request, v);
	change->cluster = dev->map.cluster[v];
	change->busy = true;
	lock_take(dev, &change->lock, v, v + change->count - 1, true);
	request->cursor = device_cluster_end(dev, v + change->count - 1);
	request->pending++;
	release_drain(request);
}

/* Punches what is at the cursor in place: one cluster, or all that lie together where nothing can ever be unmapped. */
static bool erase_in_place(struct device_request *request, uint32_t v)
{
	const struct device *dev = request->device;
	struct device_piece *piece = request_piece(request);
	uint64_t end = request_run_end(request, v);

	if (!piece)
		return false;
	if (device_writer(dev, v)->delta->format->has_index)
		end = min_u64(end, device_cluster_end(dev, v));
	request_start_piece(request, piece, IO_PUNCH, end);
	return true;
}

bool erase_advance(struct device_request *request)
{
	struct device *dev = request->device;
	uint64_t end = request->offset + request->length;
	uint32_t v = (uint32_t)(request->cursor / dev->cluster);
	struct device_lock *lock = lock_conflict(dev, v, v, false);
	bool whole = request->cursor % dev->cluster == 0 && device_cluster_end(dev, v) <= end;

	if (lock) {
		lock_wait(request, lock);
		return false;
	}
	if (partial_find(dev->partials, v))
		return write_change(request);
	if (!dev->map.cluster[v]) {
		request->cursor = request_run_end(request, v);
		return true;
	}
	if (!map_in(&dev->map, v, device_writer(dev, v)->level))
		return write_change(request);
	if (!whole || !device_can_unmap(dev, v))
		return erase_in_place(request, v);
	if (request->change.busy)
		return false;
	release_begin(request, v);
	return true;
}
