/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * write.c - changes that map something: first writes, copy-on-write, and holes that mask what lies below.
 *
 *	CLEAN  punch clusters that may hold old data                      (only if not all of them is overwritten)
 *	CLONE  share the blocks of the lower cluster                      (copy-on-write, where the file system can, of a cluster
 *	                                                                   that may not be partial)
 *	READ   a chunk of the lower cluster  <--+                         (copy-on-write, elsewhere)
 *	FILL   write it, the request's data in -+
 *	DATA   write or punch what the request asks for                   (unless FILL has done it)
 *	PUBLISH the entries go into the map, their index pages are dirty, the lock is released
 *
 * Of a cluster that is partial, or becomes so (partial.h), READ and FILL go through the units that the request touches, and
 * not at all where it writes whole units; PUBLISH tells which units are there.
 *
 * Order of writes:
 *  1. Clusters are chosen and locked first; nobody else writes to these virtual clusters meanwhile. Reads go on and see what was
 *     there before.
 *  2. Every byte of the new clusters reads as it must (old data gone, lower data copied, new data written) before PUBLISH.
 *  3. PUBLISH happens in memory only. The commit (commit.c) makes data durable before the entries.
 *  4. When a step fails nothing has been published: the clusters go back as free ones that may hold old data. A cluster that was
 *     partial before stays so, and what it lacks counts as old data.
 */
#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "device/internal.h"

#define CHANGE_MAX_CLUSTERS 1024

enum change_step { CHANGE_CLEAN, CHANGE_CLONE, CHANGE_READ, CHANGE_FILL, CHANGE_DATA, CHANGE_PUBLISH };

static void change_run(struct device_request *request);

static bool is_zero(const void *buffer, size_t len)
{
	const unsigned char *p = buffer;

	return !len || (!p[0] && !memcmp(p, p + 1, len - 1));
}

/* Whether the request covers the whole cluster. */
static bool change_covers(const struct device_request *request, uint32_t v)
{
	uint64_t start = (uint64_t)v * request->device->cluster;

	return request->cursor <= start && request->offset + request->length >= device_cluster_end(request->device, v);
}

/* Whether the part of the request from `start` on in cluster v brings nothing but zeros. */
static bool change_brings_zeros(const struct device_request *request, uint32_t v, uint64_t start)
{
	uint64_t end = min_u64(request->offset + request->length, device_cluster_end(request->device, v));

	if (request->kind != DEVICE_WRITE)
		return true;
	return is_zero((const char *)request->buffer + (start - request->offset), end - start);
}

/* How many clusters from v on one change can map: those it writes whole, or that have nothing below. */
static uint32_t change_extent(const struct device_request *request, uint32_t v)
{
	const struct device *dev = request->device;
	uint64_t end = request->offset + request->length;
	const struct writer *writer = device_writer(dev, v);
	uint32_t last = (uint32_t)((end - 1) / dev->cluster);
	uint32_t n = 1;

	while (n < CHANGE_MAX_CLUSTERS && v + n <= last) {
		uint32_t next = v + n;
		bool below = dev->map.cluster[next] != 0;

		if (device_writer(dev, next) != writer || map_in(&dev->map, next, writer->level) ||
		    lock_conflict(dev, next, next, false) || partial_find(dev->partials, next))
			break;
		if (below && !change_covers(request, next))
			break;
		if (!below && change_brings_zeros(request, next, (uint64_t)next * dev->cluster))
			break;
		n++;
	}
	return n;
}

static bool change_copies(const struct device_request *request);

static void change_publish(struct device_request *request)
{
	struct device *dev = request->device;
	struct device_change *change = &request->change;
	bool copied = change_copies(request);

	for (uint32_t i = 0; i < change->count; i++) {
		map_cover(&dev->map, change->first + i, change->writer->level, change->cluster + i);
		writer_set_entry(change->writer, change->first + i, change->cluster + i);
	}
	/* What was copied from below is new to who copies the top alone. */
	if (copied)
		device_note(dev, (uint64_t)change->first * dev->cluster, device_cluster_end(dev, change->first));
	else
		device_note(dev, change->start, change->end);
}

/* Nothing was published. */
static void change_give_up(struct device_request *request)
{
	struct device *dev = request->device;
	struct device_change *change = &request->change;
	bool mine = !change->partial || change->partial->state == PARTIAL_RESERVED;

	if (mine)
		alloc_untake(&change->writer->alloc, change->cluster, change->count);
	if (change->partial && mine)
		partial_cancel(dev->partials, change->partial);
	else if (change->partial)
		partial_soil(dev->partials, change->partial);
}

static void change_put_buffer(struct device *dev, struct device_change *change)
{
	struct list *node;

	if (!change->buffer)
		return;
	dev->buffers[dev->free_buffers++] = change->buffer;
	change->buffer = NULL;
	node = list_pop(&dev->buffer_waiters);
	if (node)
		change_run(container_of(node, struct device_request, change.op.node));
}

static void change_end(struct device_request *request, int result)
{
	struct device *dev = request->device;
	struct device_change *change = &request->change;

	if (result)
		change_give_up(request);
	else if (change->partial)
		partial_publish(dev->partials, change->partial, change->copy, change->copy_end);
	else
		change_publish(request);
	change_put_buffer(dev, change);
	change->busy = false;
	lock_release(dev, &change->lock);
	request_progress(request, result);
}

static void change_io(struct device_request *request, enum io_kind kind, uint64_t offset, uint64_t length)
{
	struct device *dev = request->device;
	struct io_op *op = &request->change.op;

	op->kind = kind;
	op->file = request->change.writer->delta->file;
	op->offset = offset;
	op->length = length;
	device_io(dev, op);
}

/* The file cluster of the top that this change is about starts here. */
static uint64_t change_offset(const struct device_request *request)
{
	return geometry_offset(&request->change.writer->delta->geometry, request->change.cluster);
}

/* Reads the next chunk of the lower cluster, when there is a buffer for it. */
static void change_read(struct device_request *request)
{
	struct device *dev = request->device;
	struct device_change *change = &request->change;
	struct io_op *op = &change->op;
	unsigned level = dev->map.level[change->first];

	if (!change->buffer) {
		if (!dev->free_buffers) {
			list_push_back(&dev->buffer_waiters, &op->node);
			return;
		}
		change->buffer = dev->buffers[--dev->free_buffers];
	}
	change->chunk_end = min_u64(change->chunk + dev->buffer_size, change->copy_end);
	op->kind = IO_READ;
	op->file = dev->levels[level].file;
	op->offset = geometry_offset(&dev->levels[level].geometry, dev->map.cluster[change->first]) + change->chunk;
	op->length = change->chunk_end - change->chunk;
	op->buffer = change->buffer;
	device_io(dev, op);
}

/* Puts the request's bytes over the chunk. */
static void change_merge(struct device_request *request)
{
	struct device *dev = request->device;
	struct device_change *change = &request->change;
	uint64_t base = (uint64_t)change->first * dev->cluster;
	uint64_t from = max_u64(change->start - base, change->chunk);
	uint64_t to = min_u64(change->end - base, change->chunk_end);
	char *at = (char *)change->buffer + (from - change->chunk);

	if (from >= to)
		return;
	if (request->kind == DEVICE_WRITE)
		memcpy(at, (char *)request->buffer + (base + from - request->offset), to - from);
	else
		memset(at, 0, to - from);
}

/* Writes the chunk, without the zeros at its ends where zeros are read already. */
static void change_fill(struct device_request *request)
{
	struct device_change *change = &request->change;
	uint64_t block = max_u64(change->writer->delta->file->block, SECTOR);
	uint64_t len = change->chunk_end - change->chunk;
	uint64_t start = 0;
	char *buffer = change->buffer;

	change_merge(request);
	while (change->blank && start < len && is_zero(buffer + start, min_u64(block, len - start)))
		start += min_u64(block, len - start);
	while (change->blank && len > start && is_zero(buffer + round_down(len - 1, block), len - round_down(len - 1, block)))
		len = round_down(len - 1, block);
	change->op.buffer = buffer + start;
	if (start < len)
		change_io(request, IO_WRITE, change_offset(request) + change->chunk + start, len - start);
	else
		change->op.done(&change->op, 0);
}

static void change_clone(struct device_request *request)
{
	struct device *dev = request->device;
	struct device_change *change = &request->change;
	unsigned level = dev->map.level[change->first];

	change->op.source = dev->levels[level].file;
	change->op.source_offset = geometry_offset(&dev->levels[level].geometry, dev->map.cluster[change->first]);
	change_io(request, IO_CLONE, change_offset(request), dev->cluster);
}

static void change_data(struct device_request *request)
{
	struct device_change *change = &request->change;
	uint64_t skip = change->start % request->device->cluster;
	uint64_t length = change->end - change->start;

	if (request->kind == DEVICE_WRITE) {
		change->op.buffer = (char *)request->buffer + (change->start - request->offset);
		change_io(request, IO_WRITE, change_offset(request) + skip, length);
	} else {
		change_io(request, IO_PUNCH, change_offset(request) + skip, length);
	}
}

/* Does the current step. */
static void change_run(struct device_request *request)
{
	struct device *dev = request->device;
	struct device_change *change = &request->change;

	switch ((enum change_step)change->step) {
	case CHANGE_CLEAN:
		change_io(request, IO_PUNCH, change_offset(request), (uint64_t)change->count * dev->cluster);
		break;
	case CHANGE_CLONE:
		change_clone(request);
		break;
	case CHANGE_READ:
		change_read(request);
		break;
	case CHANGE_FILL:
		change_fill(request);
		break;
	case CHANGE_DATA:
		change_data(request);
		break;
	case CHANGE_PUBLISH:
		change_end(request, 0);
		break;
	}
}

/* A lower cluster is below and the request does not overwrite all of it. */
static bool change_copies(const struct device_request *request)
{
	const struct device_change *change = &request->change;
	const struct device *dev = request->device;
	uint64_t start = (uint64_t)change->first * dev->cluster;

	return dev->map.cluster[change->first] &&
	       (change->start > start || change->end < device_cluster_end(dev, change->first));
}

static bool change_can_clone(const struct device_request *request)
{
	const struct device *dev = request->device;

	return delta_can_clone(request->change.writer->delta, &dev->levels[dev->map.level[request->change.first]]);
}

/* The first step after the new clusters are clean. */
static enum change_step change_first_step(const struct device_request *request)
{
	const struct device_change *change = &request->change;

	if (change->partial && change->copy_end - change->copy != change->end - change->start)
		return CHANGE_READ;
	if (!change->partial && change_copies(request))
		return change_can_clone(request) ? CHANGE_CLONE : CHANGE_READ;
	/* A hole that masks lower data needs no data: the new cluster reads as zeros. */
	return request->kind == DEVICE_WRITE || !change->blank ? CHANGE_DATA : CHANGE_PUBLISH;
}

/* Which part of the cluster is copied or overwritten, and whether it reads as zeros before. */
static void change_set_part(struct device_request *request)
{
	const struct device *dev = request->device;
	struct device_change *change = &request->change;
	const struct partial *partial = change->partial;
	uint64_t base = (uint64_t)change->first * dev->cluster;

	change->copy = 0;
	change->copy_end = dev->cluster;
	change->blank = true;
	if (!partial)
		return;
	change->copy = change->start - base;
	change->copy_end = change->end - base;
	partial_widen(dev->partials, partial, &change->copy, &change->copy_end);
	change->blank = partial->blank && partial_lacks(dev->partials, partial, change->copy, change->copy_end);
}

/* Whether the file system cannot clone this range, and so has not touched it. Any other failure may have cloned a part. */
static bool change_clone_refused(const struct device_change *change, int result)
{
	if (result == -EOPNOTSUPP || result == -EXDEV)
		change->writer->delta->file->can_clone = false;
	return result == -EOPNOTSUPP || result == -EXDEV || result == -EINVAL;
}

static void change_done(struct io_op *op, int result)
{
	struct device_request *request = container_of(op, struct device_request, change.op);
	struct device *dev = request->device;
	struct device_change *change = &request->change;

	if (stall_op(dev, op, result))
		return;
	if (op->kind != IO_READ)
		device_written(dev);
	if (change->step == CHANGE_CLONE && change_clone_refused(change, result)) {
		change->step = CHANGE_READ;
		change_run(request);
		return;
	}
	if (result) {
		change_end(request, result);
		return;
	}
	switch ((enum change_step)change->step) {
	case CHANGE_CLEAN:
		alloc_cleaned(&change->writer->alloc, change->cluster, change->count);
		change->step = change_first_step(request);
		break;
	case CHANGE_CLONE:
		change->step = CHANGE_DATA;
		break;
	case CHANGE_READ:
		change->step = CHANGE_FILL;
		break;
	case CHANGE_FILL:
		change->chunk = change->chunk_end;
		change->step = change->chunk < change->copy_end ? CHANGE_READ : CHANGE_PUBLISH;
		break;
	case CHANGE_DATA:
	case CHANGE_PUBLISH:
		change->step = CHANGE_PUBLISH;
		break;
	}
	change_run(request);
}

/* Whether the new clusters are overwritten whole by the request itself. */
static bool change_overwrites(const struct device_request *request)
{
	const struct device_change *change = &request->change;
	uint32_t cluster = request->device->cluster;

	return request->kind == DEVICE_WRITE && change->start % cluster == 0 && change->end % cluster == 0;
}

static void change_begin(struct device_request *request)
{
	struct device *dev = request->device;
	struct device_change *change = &request->change;
	bool fresh = !change->partial || change->partial->state == PARTIAL_RESERVED;

	lock_take(dev, &change->lock, change->first, change->first + change->count - 1, false);
	change->busy = true;
	change_set_part(request);
	change->chunk = change->copy;
	change->buffer = NULL;
	change->op.done = change_done;
	change->step = change_first_step(request);
	if (change->partial)
		dev->stats.bio_partial++;
	else if (change->step == CHANGE_CLONE || change->step == CHANGE_READ)
		dev->stats.bio_cows++;
	else if (change_overwrites(request))
		dev->stats.bio_alloc_whole++;
	else
		dev->stats.bio_alloc++;
	if (fresh && !change_overwrites(request) && alloc_stale(&change->writer->alloc, change->cluster, change->count))
		change->step = CHANGE_CLEAN;
	request->cursor = change->end;
	request->pending++;
	change_run(request);
}

/* Goes on in a cluster that is partial: what is there is written in place. */
static bool write_partial(struct device_request *request, uint32_t v, struct partial *partial)
{
	struct device *dev = request->device;
	struct device_change *change = &request->change;
	uint64_t end = min_u64(request->offset + request->length, device_cluster_end(dev, v));
	uint64_t base = (uint64_t)v * dev->cluster;
	struct device_piece *piece;

	if (partial_has(dev->partials, partial, request->cursor - base, end - base)) {
		piece = request_piece(request);
		if (piece)
			request_start_piece_at(
				request, piece, request->kind == DEVICE_WRITE ? IO_WRITE : IO_PUNCH, end,
				(struct device_place){ .level = dev->writer->level, .cluster = partial->cluster });
		return piece;
	}
	if (change->busy)
		return false;
	change->first = v;
	change->count = 1;
	change->writer = dev->writer;
	change->cluster = partial->cluster;
	change->partial = partial;
	change->start = request->cursor;
	change->end = end;
	change_begin(request);
	return true;
}

/* Whether the change at the cursor would have to copy what it does not write itself. */
static bool change_would_copy(const struct device_request *request, uint32_t v)
{
	const struct device *dev = request->device;

	return dev->map.cluster[v] && !change_covers(request, v);
}

bool write_change(struct device_request *request)
{
	struct device *dev = request->device;
	struct device_change *change = &request->change;
	uint32_t v = (uint32_t)(request->cursor / dev->cluster);
	uint64_t end = request->offset + request->length;
	bool below = dev->map.cluster[v] != 0;
	struct partial *partial = partial_find(dev->partials, v);
	bool part;
	int r;

	if (partial)
		return write_partial(request, v, partial);
	if (change->busy)
		return false;
	if (!below && change_brings_zeros(request, v, request->cursor)) {
		/* Nothing is stored where zeros are read already. */
		request->cursor = min_u64(end, device_cluster_end(dev, v));
		dev->stats.bio_wzero++;
		return true;
	}
	part = change_would_copy(request, v);
	if (part && partials_wait(dev->partials, request, v))
		return false;
	change->first = v;
	change->count = below && !change_covers(request, v) ? 1 : change_extent(request, v);
	change->writer = device_writer(dev, v);
	r = writer_allocate(change->writer, change->count, &change->cluster);
	if (r < 0) {
		if (!stall_request(request, r))
			request->result = r;
		return false;
	}
	change->count = (uint32_t)r;
	change->start = request->cursor;
	change->end = min_u64(end, device_cluster_end(dev, v + change->count - 1));
	change->partial = NULL;
	if (part && partials_may_begin(dev->partials, v))
		change->partial = partial_reserve(dev->partials, v, change->cluster);
	change_begin(request);
	return true;
}
