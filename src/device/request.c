/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * request.c - the life of a request.
 *
 *	device_submit -> request_continue: from the cursor on, one run after the other
 *	    read                              -> piece
 *	    write, mapped in the top          -> piece             (nothing but I/O: the fast path)
 *	    write, not mapped in the top      -> change (write.c)
 *	    discard, write zeroes             -> piece or change (erase.c)
 *	    flush                             -> commit (commit.c)
 *	piece or change done -> request_progress -> request_continue ... -> request_finish -> [FUA: commit] -> done
 *
 * A request has up to DEVICE_REQUEST_PIECES pieces and one change in flight. It waits in one list at most, and only at its
 * cursor: for a lock, or for space. No memory is allocated, nothing is logged, and the data is not copied (but for
 * copy-on-write).
 */
#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "device/internal.h"
#include "io/loop.h"

void device_io(struct device *dev, struct io_op *op)
{
	dev->stats.bio_out++;
	io_submit(op);
}

static bool request_changes_data(const struct device_request *request)
{
	return request->kind == DEVICE_WRITE || request->kind == DEVICE_DISCARD || request->kind == DEVICE_WRITE_ZEROES;
}

/* Nothing is under way any more. */
static void request_last(struct device *dev)
{
	job_poke(dev);
	device_check_close(dev);
}

static void request_committed(struct device_commit_waiter *waiter, int result)
{
	struct device_request *request = container_of(waiter, struct device_request, waiter);

	request_progress(request, result);
}

/* Makes the next writer durable for a flush or a FUA. */
static void request_commit(struct device_request *request)
{
	struct device *dev = request->device;
	struct writer *writer = --request->commits ? dev->under : dev->writer;

	request->pending++;
	request->waiter.done = request_committed;
	commit_wait(&writer->commit, &request->waiter);
}

static bool request_wants_commit(const struct device_request *request)
{
	return request->kind == DEVICE_FLUSH || (request->flags & DEVICE_FUA && request_changes_data(request));
}

static void request_finish(struct device_request *request)
{
	struct device *dev = request->device;

	if (request_wants_commit(request) && !request->committing) {
		request->committing = true;
		request->commits = dev->under_end ? 2 : 1;
	}
	if (!request->result && request->commits) {
		request_commit(request);
		return;
	}
	list_remove(&request->node);
	if (list_empty(&dev->active))
		request_last(dev);
	dev->stats.bio_errors += !!request->result;
	request->done(request, request->result);
}

/* Something was written to a delta. With two writers both have a look: a sync too many is cheap. */
void device_written(struct device *dev)
{
	dev->writer->commit.written++;
	if (dev->under)
		dev->under->commit.written++;
}

static void piece_done(struct io_op *op, int result)
{
	struct device_piece *piece = container_of(op, struct device_piece, op);
	struct device_request *request = piece->request;
	struct device *dev = request->device;

	if (stall_op(dev, op, result))
		return;
	piece->busy = false;
	if (op->kind != IO_READ) {
		device_written(dev);
#ifndef DEVICE_BREAK_NOTE_EARLY /* tests/sim: what is under way when a note is taken away is missed */
		device_note(dev, piece->start, piece->end);
#endif
	}
	request_progress(request, result);
	if (!list_empty(&dev->drainers))
		erase_drained(dev);
	job_poke(dev);
}

struct device_piece *request_piece(struct device_request *request)
{
	for (unsigned i = 0; i < DEVICE_REQUEST_PIECES; i++)
		if (!request->pieces[i].busy)
			return &request->pieces[i];
	return NULL;
}

void request_start_piece(struct device_request *request, struct device_piece *piece, enum io_kind kind, uint64_t end)
{
	struct device *dev = request->device;

	request_start_piece_at(request, piece, kind, end,
			       device_lookup(dev, (uint32_t)(request->cursor / dev->cluster)));
}

void request_start_piece_at(struct device_request *request, struct device_piece *piece, enum io_kind kind, uint64_t end,
			    struct device_place place)
{
	struct device *dev = request->device;
	uint64_t start = request->cursor;

	piece->request = request;
	piece->start = start;
	piece->end = end;
	piece->busy = true;
	piece->op.kind = kind;
	piece->op.file = dev->levels[place.level].file;
	piece->op.offset = device_file_offset(dev, place.level, place.cluster, start);
	piece->op.length = end - start;
	piece->op.buffer = request->buffer ? (char *)request->buffer + (start - request->offset) : NULL;
	piece->op.done = piece_done;
	request->cursor = end;
	request->pending++;
	dev->stats.bio_fast++;
#ifdef DEVICE_BREAK_NOTE_EARLY
	if (kind != IO_READ)
		device_note(dev, piece->start, piece->end);
#endif
	device_io(dev, &piece->op);
}

/* Where the run of clusters at the cursor that lie together ends for this request. With locks about, one cluster at a time. */
uint64_t request_run_end(const struct device_request *request, uint32_t v)
{
	const struct device *dev = request->device;
	uint64_t end = request->offset + request->length;
	uint32_t last = (uint32_t)((end - 1) / dev->cluster);
	uint32_t n = list_empty(&dev->locks) ? map_run(&dev->map, v, last - v + 1) : 1;

	/* Where a part of a cluster has gone elsewhere the map does not say so. */
	for (uint32_t i = 1; i < n && dev->partials->count[PARTIAL_LIVE]; i++)
		if (partial_find(dev->partials, v + i))
			n = i;
	/* What lies together may still have two writers. */
	if (v < dev->under_end)
		n = (uint32_t)min_u64(n, dev->under_end - v);
	return min_u64(end, ((uint64_t)v + n) * dev->cluster);
}

/* Where the cursor reads from, and up to where. */
static struct device_place read_place(const struct device_request *request, uint32_t v, uint64_t *ret_end)
{
	const struct device *dev = request->device;
	const struct partial *partial = partial_find(dev->partials, v);
	struct device_place place = device_lookup(dev, v);
	uint64_t start = (uint64_t)v * dev->cluster, end;
	bool there;

	*ret_end = request_run_end(request, v);
	if (!partial)
		return place;
	end = start + partial_run(dev->partials, partial, request->cursor - start, &there);
	*ret_end = min_u64(min_u64(*ret_end, end), device_cluster_end(dev, v));
	if (there)
		place = (struct device_place){ .level = dev->writer->level, .cluster = partial->cluster };
	return place;
}

static bool read_advance(struct device_request *request)
{
	struct device *dev = request->device;
	uint32_t v = (uint32_t)(request->cursor / dev->cluster);
	struct device_lock *lock = lock_conflict(dev, v, v, true);
	struct device_piece *piece;
	struct device_place place;
	uint64_t end;

	if (lock) {
		lock_wait(request, lock);
		return false;
	}
	place = read_place(request, v, &end);
	if (!place.cluster) {
		memset((char *)request->buffer + (request->cursor - request->offset), 0, end - request->cursor);
		request->cursor = end;
		dev->stats.bio_rzero++;
		return true;
	}
	piece = request_piece(request);
	if (!piece)
		return false;
	request_start_piece_at(request, piece, IO_READ, end, place);
	return true;
}

static bool write_advance(struct device_request *request)
{
	struct device *dev = request->device;
	uint32_t v = (uint32_t)(request->cursor / dev->cluster);
	struct device_lock *lock = lock_conflict(dev, v, v, false);
	struct device_piece *piece;

	if (lock) {
		lock_wait(request, lock);
		return false;
	}
	if (!map_in(&dev->map, v, device_writer(dev, v)->level))
		return write_change(request);
	piece = request_piece(request);
	if (!piece)
		return false;
	request_start_piece(request, piece, IO_WRITE, request_run_end(request, v));
	return true;
}

static bool request_advance(struct device_request *request)
{
	if (request->kind == DEVICE_READ)
		return read_advance(request);
	if (request->device->aborted) {
		request->result = -EIO;
		return false;
	}
	if (request->kind == DEVICE_WRITE)
		return write_advance(request);
	return erase_advance(request);
}

void request_continue(struct device_request *request)
{
	uint64_t end = request->offset + request->length;

	/* A change may be over before its step returns: then the loop below goes on, not another one inside it. */
	if (request->running)
		return;
	request->running = true;
	while (!request->waiting && !request->result && request->cursor < end)
		if (!request_advance(request))
			break;
	request->running = false;
	if (!request->waiting && !request->pending && (request->cursor == end || request->result))
		request_finish(request);
}

void request_progress(struct device_request *request, int result)
{
	if (result && !request->result)
		request->result = result;
	request->pending--;
	if (!request->waiting)
		request_continue(request);
}

static void submit_stats(struct device_stats *stats, const struct device_request *request)
{
	stats->bio_in++;
	stats->bio_fua_in += !!(request->flags & DEVICE_FUA);
	switch (request->kind) {
	case DEVICE_READ:
		stats->read_bytes += request->length;
		break;
	case DEVICE_WRITE:
		stats->write_bytes += request->length;
		break;
	case DEVICE_DISCARD:
	case DEVICE_WRITE_ZEROES:
		stats->bio_discard++;
		stats->discard_bytes += request->length;
		break;
	case DEVICE_FLUSH:
		stats->bio_flush_in++;
		break;
	}
}

void request_submit(struct device *dev, struct device_request *request)
{
	request->device = dev;
	request->cursor = request->offset;
	request->pending = 0;
	request->result = 0;
	request->running = false;
	request->waiting = false;
	request->committing = false;
	request->commits = 0;
	request->change.busy = false;
	for (unsigned i = 0; i < DEVICE_REQUEST_PIECES; i++)
		request->pieces[i].busy = false;
	list_init(&request->wait);
	list_push_back(&dev->active, &request->node);
	submit_stats(&dev->stats, request);
	if (dev->read_only && request_changes_data(request))
		request->result = -EROFS;
	if (request->kind == DEVICE_FLUSH)
		request->length = 0;
	request_continue(request);
}

void device_submit(struct device *dev, struct device_request *request)
{
	if (dev->gated)
		list_push_back(&dev->gate, &request->wait);
	else
		request_submit(dev, request);
}

void gate_close(struct device *dev)
{
	dev->gated = true;
	dev->gated_at = loop_now(dev->loop);
	dev->stats.gate_closed++;
}

void gate_open(struct device *dev)
{
	struct list waiting;
	struct list *node;

	if (dev->gated)
		dev->stats.gate_ns += loop_now(dev->loop) - dev->gated_at;
	dev->gated = false;
	list_init(&waiting);
	list_move_all(&waiting, &dev->gate);
	while ((node = list_pop(&waiting)) != NULL)
		device_submit(dev, container_of(node, struct device_request, wait));
}
