/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * rewrite.c - see rewrite.h.
 *
 * Each of a few slots carries one cluster over: by a clone where the file system can, else piece by piece, read, looked
 * through for zeros, and written. A cluster gets its place in the new file when the first byte that is not zero is seen, so
 * that what is empty takes no place.
 */
#include "job/rewrite.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/list.h"
#include "device/device.h"
#include "format/ploop1.h"
#include "io/io.h"
#include "io/loop.h"
#include "job/qcow2.h"
#include "job/rewrite-private.h"

#define SLOTS 8u
#define PIECE (512u * 1024)
#define BLOCK 4096u /* zeros are looked for in blocks of this size */
#define INDEX_PIECE (1024u * 1024)

struct slot {
	struct io_op op;
	struct run *run;
	bool busy;
	uint32_t v; /* virtual cluster */
	struct io_file *from;
	uint64_t source;    /* byte of `from` where the cluster starts */
	uint64_t at, end;   /* bytes of the cluster: read so far, and all that count */
	uint64_t got;       /* byte of the cluster where the buffer starts */
	size_t have, taken; /* bytes in the buffer, and those that are done with */
	void *buffer;
};

struct run {
	struct rewrite *rewrite;
	struct device *device; /* the source */
	struct slot slots[SLOTS];
	uint32_t *places; /* file cluster of each virtual cluster, 0: none; NULL for raw */
	uint32_t next;    /* file cluster that is given out next */
	uint32_t v;       /* virtual cluster that is looked at next */
	uint64_t copied;  /* clusters that went through memory */
	unsigned busy;
	int result;
};

static void slot_step(struct slot *slot);

static bool is_zero(const char *data, size_t len)
{
	return !*data && !memcmp(data, data + 1, len - 1);
}

/* Gives the cluster its place. Returns its byte in the new file, or a negative errno. */
static int64_t place(struct run *run, uint32_t v)
{
	const struct geometry *to = &run->rewrite->to;

	if (!run->places)
		return (int64_t)geometry_offset(to, v + 1);
	if (!run->places[v]) {
		if (run->rewrite->form == REWRITE_PLOOP1 && run->next > format_ploop1.last(to))
			return -EFBIG;
		run->places[v] = run->next++;
		run->rewrite->clusters++;
	}
	return (int64_t)geometry_offset(to, run->places[v]);
}

static void slot_end(struct slot *slot, int result)
{
	if (result < 0 && !slot->run->result)
		slot->run->result = result;
	slot->busy = false;
	slot->run->busy--;
	loop_stop(slot->run->rewrite->loop);
}

static void slot_submit(struct slot *slot, enum io_kind kind, struct io_file *file, uint64_t offset, size_t length,
			void (*done)(struct io_op *op, int result))
{
	slot->op = (struct io_op){
		.kind = kind, .file = file, .offset = offset, .length = length, .buffer = slot->buffer, .done = done
	};
	if (kind == IO_WRITE)
		slot->op.buffer = (char *)slot->buffer + slot->taken;
	if (kind == IO_CLONE) {
		slot->op.source = slot->from;
		slot->op.source_offset = slot->source;
	}
	io_submit(&slot->op);
}

static void slot_written(struct io_op *op, int result)
{
	struct slot *slot = container_of(op, struct slot, op);

	slot->taken += op->length;
	if (result < 0)
		slot_end(slot, result);
	else
		slot_step(slot);
}

/* Writes the next run of blocks with content that is in the buffer. False when there is none. */
static bool slot_write(struct slot *slot)
{
	const char *data = slot->buffer;
	size_t start = slot->taken, end;
	int64_t offset;

	while (start < slot->have && is_zero(data + start, min_u64(BLOCK, slot->have - start)))
		start += min_u64(BLOCK, slot->have - start);
	for (end = start; end < slot->have && !is_zero(data + end, min_u64(BLOCK, slot->have - end));)
		end += min_u64(BLOCK, slot->have - end);
	slot->taken = start;
	if (start == slot->have)
		return false;
	offset = place(slot->run, slot->v);
	if (offset < 0)
		slot_end(slot, (int)offset);
	else
		slot_submit(slot, IO_WRITE, slot->run->rewrite->file, (uint64_t)offset + slot->got + start, end - start,
			    slot_written);
	return true;
}

static void slot_was_read(struct io_op *op, int result)
{
	struct slot *slot = container_of(op, struct slot, op);

	if (result < 0) {
		slot_end(slot, result);
		return;
	}
	slot->have = op->length;
	slot->taken = 0;
	slot_step(slot);
}

/* Moves `at` to the next data of the cluster; to the end when there is none. */
static int slot_skip_hole(struct slot *slot, uint64_t *ret_end)
{
	uint64_t start, end, from = slot->source + slot->at;
	int r = io_next_data(slot->from, from, &start, &end);

	if (r < 0)
		return r;
	start = max_u64(round_down(start, BLOCK), from);
	*ret_end = slot->end;
	if (start >= slot->source + slot->end)
		slot->at = slot->end;
	else
		slot->at = start - slot->source;
	if (end < slot->source + slot->end && end > start)
		*ret_end = min_u64(slot->end, round_up(end - slot->source, BLOCK));
	return 0;
}

/* Goes on with the cluster: writes what is in the buffer, else reads more. */
static void slot_step(struct slot *slot)
{
	uint64_t end;
	int r;

	if (slot->taken < slot->have && slot_write(slot))
		return;
	r = slot_skip_hole(slot, &end);
	if (r < 0 || slot->at == slot->end) {
		slot_end(slot, r);
		return;
	}
	slot->got = slot->at;
	slot->have = slot->taken = 0;
	slot->at = min_u64(end, slot->at + PIECE);
	slot_submit(slot, IO_READ, slot->from, slot->source + slot->got, slot->at - slot->got, slot_was_read);
}

static void slot_copy(struct slot *slot)
{
	slot->run->copied++;
	slot_step(slot);
}

static void slot_cloned(struct io_op *op, int result)
{
	struct slot *slot = container_of(op, struct slot, op);

	if (result < 0)
		slot_copy(slot); /* the file remembers that it cannot */
	else
		slot_end(slot, 0);
}

static bool can_clone(const struct slot *slot)
{
	const struct rewrite *rewrite = slot->run->rewrite;
	uint32_t block = rewrite->file->block;

	/* Blocks that were taken from the host would be given back. */
	return rewrite->form != REWRITE_PREALLOCATED && rewrite->file->can_clone &&
	       rewrite->file->ops == slot->from->ops && slot->end % block == 0 && slot->source % block == 0;
}

/* A cluster that holds nothing needs no slot. 1: started, 0: nothing to do. */
static int slot_start(struct slot *slot, uint32_t v, const struct device_place *where)
{
	struct run *run = slot->run;
	const struct rewrite *rewrite = run->rewrite;
	const struct delta *level = &rewrite->levels[where->level];
	uint64_t end;
	int64_t offset = 0;
	int r;

	slot->v = v;
	slot->from = level->file;
	slot->source = geometry_offset(&level->geometry, where->cluster);
	slot->at = 0;
	slot->end = min_u64(rewrite->to.cluster, rewrite->to.size - (uint64_t)v * rewrite->to.cluster);
	slot->have = slot->taken = 0;
	r = slot_skip_hole(slot, &end);
	if (!r && (rewrite->keep_zeros || (slot->at < slot->end && can_clone(slot))))
		offset = place(run, v);
	if (r < 0 || offset < 0 || slot->at == slot->end)
		return r < 0 ? r : offset < 0 ? (int)offset : 0;
	slot->busy = true;
	run->busy++;
	if (can_clone(slot))
		slot_submit(slot, IO_CLONE, rewrite->file, (uint64_t)offset, slot->end, slot_cloned);
	else
		slot_copy(slot);
	return 1;
}

/* Starts clusters until there is no free slot. 1 while there are more. */
static int fill_slots(struct run *run)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		struct slot *slot = &run->slots[i];

		while (!slot->busy) {
			struct device_place where;
			int r;

			if (run->v == run->rewrite->to.clusters)
				return 0;
			where = device_lookup(run->device, run->v++);
			r = where.cluster ? slot_start(slot, run->v - 1, &where) : 0;
			if (r < 0)
				return r;
			if (run->result < 0)
				return run->result;
		}
	}
	return 1;
}

static bool cancelled(const struct run *run)
{
	const struct rewrite *rewrite = run->rewrite;

	return rewrite->progress && rewrite->progress(rewrite->progress_data, "convert",
						      (uint64_t)run->v * rewrite->to.cluster, rewrite->to.size);
}

static int copy(struct run *run)
{
	int more = 1, r = 0;

	while (more > 0 && !run->result) {
		more = fill_slots(run);
		if (more >= 0 && cancelled(run))
			more = -ECANCELED;
		if (more >= 0 && run->busy)
			r = loop_run(run->rewrite->loop);
		if (r < 0)
			more = r;
	}
	if (more < 0 && !run->result)
		run->result = more;
	while (run->busy && r >= 0)
		r = loop_run(run->rewrite->loop);
	return r < 0 ? r : run->result;
}

/* The index where it is not all zeros, which it is already. */
static int write_index(struct run *run)
{
	const struct rewrite *rewrite = run->rewrite;
	const struct geometry *to = &rewrite->to;
	uint32_t per_piece = INDEX_PIECE / 4;
	_free_ uint32_t *entries = malloc(INDEX_PIECE);
	int r = entries ? 0 : -ENOMEM;

	for (uint32_t v = 0; v < to->clusters && !r; v += per_piece) {
		uint32_t n = (uint32_t)min_u64(per_piece, to->clusters - v);

		for (uint32_t i = 0; i < n; i++)
			entries[i] = htole32(format_ploop1.encode(to, run->places[v + i]));
		if (!is_zero((const char *)entries, 4 * (size_t)n))
			r = io_pwrite(rewrite->file, entries, 4 * (size_t)n, to->index + 4 * (uint64_t)v);
	}
	return r;
}

static int finish_ploop1(struct run *run)
{
	struct rewrite *rewrite = run->rewrite;
	uint8_t head[FORMAT_HEAD] = { 0 };
	int r = io_truncate(rewrite->file, geometry_offset(&rewrite->to, run->next));

	if (!r)
		r = io_sync(rewrite->file);
	if (!r)
		r = write_index(run);
	if (!r)
		r = io_sync(rewrite->file);
	if (run->next > rewrite->to.first)
		rewrite->to.flags &= ~PLOOP1_FLAG_EMPTY;
	format_ploop1.build(&rewrite->to, head);
	if (!r)
		r = io_pwrite(rewrite->file, head, rewrite->to.index, 0);
	return r ? r : io_sync(rewrite->file);
}

static int finish(struct run *run)
{
	struct rewrite *rewrite = run->rewrite;
	int r;

	switch (rewrite->form) {
	case REWRITE_RAW:
		r = io_truncate(rewrite->file, rewrite->to.size);
		return r ? r : io_sync(rewrite->file);
	case REWRITE_QCOW2:
		return qcow2_finish(rewrite->file, &rewrite->to, run->places, run->next, rewrite->backing,
				    rewrite->backing_format);
	default:
		return finish_ploop1(run);
	}
}

static int prepare(struct run *run)
{
	struct rewrite *rewrite = run->rewrite;
	const struct geometry *to = &rewrite->to;

	for (unsigned i = 0; i < SLOTS; i++) {
		run->slots[i].run = run;
		run->slots[i].buffer = io_buffer_new(PIECE);
		if (!run->slots[i].buffer)
			return -ENOMEM;
	}
	run->next = to->first;
	if (rewrite->form == REWRITE_RAW)
		return 0;
	run->places = calloc(to->clusters, sizeof(*run->places));
	if (!run->places)
		return -ENOMEM;
	for (uint32_t v = 0; rewrite->form == REWRITE_PREALLOCATED && v < to->clusters; v++)
		run->places[v] = run->next++;
	return 0;
}

int rewrite_image(struct rewrite *rewrite, struct ploop_error *err)
{
	struct run run = { .rewrite = rewrite };
	int r = rewrite_open_source(rewrite, &run.device, err);

	if (r < 0)
		return r;
	rewrite->clusters = 0;
	r = prepare(&run);
	if (!r)
		r = copy(&run);
	if (!r)
		r = finish(&run);
	rewrite->shared = !run.copied;
	rewrite_close_device(rewrite->loop, run.device);
	for (unsigned i = 0; i < SLOTS; i++)
		io_buffer_free(run.slots[i].buffer, PIECE);
	free(run.places);
	if (r == -ECANCELED)
		return error_set(err, r, PLOOP_EXIT_ABORT, "%s: cancelled", rewrite->file->path);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_WRITE, "%s: cannot be written", rewrite->file->path) : 0;
}
