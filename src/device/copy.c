/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * copy.c - see copy.h.
 *
 * What is read is looked through in pieces of COPY_PIECE, or of what is asked for. Zeros are not stored where zeros are already;
 * in a place with old data they are punched. So what was sparse stays so.
 */
#include "device/copy.h"

#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "device/internal.h"

#define COPY_PIECE (UINT64_C(64) << 10)
#define COPY_BITS 64u /* of copy->stored */
#define CLONE_MOST (UINT64_C(256) << 20)

static void copy_read(struct copy *copy);

bool copy_stored(const struct copy *copy, uint32_t i)
{
	return copy->stored >> min_u64(i, COPY_BITS - 1) & 1;
}

static void copy_io(struct copy *copy, enum io_kind kind, const struct delta *delta, uint32_t cluster, uint64_t start,
		    uint64_t end)
{
	struct io_op *op = &copy->op;

	op->kind = kind;
	op->file = delta->file;
	op->offset = geometry_offset(&delta->geometry, cluster) + start;
	op->length = end - start;
	op->buffer = (char *)copy->buffer + (start - copy->chunk);
	device_io(copy->device, op);
}

static const unsigned char *copy_bytes(const struct copy *copy, uint64_t at)
{
	return (const unsigned char *)copy->buffer + (at - copy->chunk);
}

static uint64_t copy_piece_end(const struct copy *copy, uint64_t at)
{
	uint64_t grain = copy->grain ? copy->grain : COPY_PIECE;

	return min_u64(round_down(at, grain) + grain, copy->chunk_end);
}

static bool copy_is_zero(const struct copy *copy, uint64_t start, uint64_t end)
{
	const unsigned char *p = copy_bytes(copy, start);

	return !p[0] && !memcmp(p, p + 1, end - start - 1);
}

/* The next piece of what was read: as many bytes as are alike, zeros or not. Returns which. */
static bool copy_next_piece(struct copy *copy)
{
	bool zero;

	copy->piece = copy->piece_end;
	copy->piece_end = copy_piece_end(copy, copy->piece);
	zero = copy_is_zero(copy, copy->piece, copy->piece_end);
	while (copy->piece_end < copy->chunk_end) {
		uint64_t end = copy_piece_end(copy, copy->piece_end);

		if (copy_is_zero(copy, copy->piece_end, end) != zero)
			break;
		copy->piece_end = end;
	}
	return zero;
}

static void copy_note_stored(struct copy *copy)
{
	uint32_t cluster = copy->to->geometry.cluster;

	for (uint64_t i = copy->piece / cluster; i <= (copy->piece_end - 1) / cluster; i++)
		copy->stored |= UINT64_C(1) << min_u64(i, COPY_BITS - 1);
}

/* Writes what was read, piece by piece; then goes on with the next chunk. */
static void copy_write(struct copy *copy)
{
	while (copy->piece_end < copy->chunk_end) {
		bool zero = copy_next_piece(copy);

		if (zero && !copy->stale)
			continue;
		if (!zero)
			copy_note_stored(copy);
		copy_io(copy, zero ? IO_PUNCH : IO_WRITE, copy->to, copy->to_cluster, copy->piece, copy->piece_end);
		return;
	}
	copy->chunk = copy->chunk_end;
	if (copy->chunk < copy->length)
		copy_read(copy);
	else
		copy->done(copy, 0);
}

static bool copy_waits(struct copy *copy, int result)
{
	return !copy->impatient && stall_op(copy->device, &copy->op, result);
}

static void copy_written(struct io_op *op, int result)
{
	struct copy *copy = container_of(op, struct copy, op);

	if (copy_waits(copy, result))
		return;
	device_written(copy->device);
	if (result)
		copy->done(copy, result);
	else
		copy_write(copy);
}

static void copy_was_read(struct io_op *op, int result)
{
	struct copy *copy = container_of(op, struct copy, op);

	if (result) {
		copy->done(copy, result);
		return;
	}
	op->done = copy_written;
	copy->piece_end = copy->chunk;
	copy_write(copy);
}

static void copy_read(struct copy *copy)
{
	copy->chunk_end = min_u64(copy->chunk + COPY_CHUNK, copy->length);
	copy->op.done = copy_was_read;
	copy_io(copy, IO_READ, copy->from, copy->from_cluster, copy->chunk, copy->chunk_end);
}

static void copy_cloned(struct io_op *op, int result)
{
	struct copy *copy = container_of(op, struct copy, op);

	if (copy_waits(copy, result))
		return;
	device_written(copy->device);
	if (!result) {
		copy->stored = UINT64_MAX;
		copy->done(copy, 0);
		return;
	}
	if (result == -EOPNOTSUPP || result == -EXDEV)
		copy->to->file->can_clone = false;
	/* It may have been done in part. */
	copy->stale = true;
	copy_read(copy);
}

static bool copy_can_clone(const struct copy *copy)
{
	return copy->length % copy->to->geometry.cluster == 0 && delta_can_clone(copy->to, copy->from);
}

uint32_t copy_most(const struct device *device, const struct delta *to, const struct delta *from)
{
	uint64_t bytes = delta_can_clone(to, from) ? CLONE_MOST : COPY_CHUNK;

	return (uint32_t)max_u64(1, bytes / device->cluster);
}

void copy_start(struct copy *copy)
{
	struct io_op *op = &copy->op;

	copy->chunk = 0;
	copy->stored = 0;
	if (!copy_can_clone(copy)) {
		copy_read(copy);
		return;
	}
	op->source = copy->from->file;
	op->source_offset = geometry_offset(&copy->from->geometry, copy->from_cluster);
	op->done = copy_cloned;
	copy_io(copy, IO_CLONE, copy->to, copy->to_cluster, 0, copy->length);
}
