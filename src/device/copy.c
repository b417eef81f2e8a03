/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* copy.c - see copy.h. Zeros are not stored where zeros are already; in a place with old data they are punched. */
#include "device/copy.h"

#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "device/internal.h"

static void copy_read(struct copy *copy);

static void copy_io(struct copy *copy, enum io_kind kind, const struct delta *delta, uint32_t cluster)
{
	struct io_op *op = &copy->op;

	op->kind = kind;
	op->file = delta->file;
	op->offset = geometry_offset(&delta->geometry, cluster) + copy->chunk;
	op->length = copy->chunk_end - copy->chunk;
	op->buffer = copy->buffer;
	device_io(copy->device, op);
}

static void copy_next(struct copy *copy)
{
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
		copy_next(copy);
}

static bool copy_is_zero(const struct copy *copy)
{
	const unsigned char *p = copy->buffer;

	return !p[0] && !memcmp(p, p + 1, copy->chunk_end - copy->chunk - 1);
}

static void copy_was_read(struct io_op *op, int result)
{
	struct copy *copy = container_of(op, struct copy, op);

	if (result) {
		copy->done(copy, result);
		return;
	}
	op->done = copy_written;
	if (!copy_is_zero(copy)) {
		copy->stored = true;
		copy_io(copy, IO_WRITE, copy->to, copy->to_cluster);
	} else if (copy->stale) {
		copy_io(copy, IO_PUNCH, copy->to, copy->to_cluster);
	} else {
		copy_next(copy);
	}
}

static void copy_read(struct copy *copy)
{
	copy->chunk_end = min_u64(copy->chunk + copy->buffer_size, copy->length);
	copy->op.done = copy_was_read;
	copy_io(copy, IO_READ, copy->from, copy->from_cluster);
}

static void copy_cloned(struct io_op *op, int result)
{
	struct copy *copy = container_of(op, struct copy, op);

	if (copy_waits(copy, result))
		return;
	device_written(copy->device);
	if (!result) {
		copy->stored = true;
		copy->done(copy, 0);
		return;
	}
	if (result == -EOPNOTSUPP || result == -EXDEV)
		copy->to->file->can_clone = false;
	/* It may have been done in part. */
	copy->stale = true;
	copy_read(copy);
}

void copy_start(struct copy *copy)
{
	struct io_op *op = &copy->op;

	copy->chunk = 0;
	copy->stored = false;
	if (copy->length % copy->to->geometry.cluster || !delta_can_clone(copy->to, copy->from)) {
		copy_read(copy);
		return;
	}
	copy->chunk_end = copy->length;
	op->source = copy->from->file;
	op->source_offset = geometry_offset(&copy->from->geometry, copy->from_cluster);
	op->done = copy_cloned;
	copy_io(copy, IO_CLONE, copy->to, copy->to_cluster);
}
