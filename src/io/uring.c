/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * uring.c - the I/O module that puts its operations on the loop's io_uring, with direct I/O.
 *
 * An operation is one entry at a time: a transfer that comes back short goes on where it stopped, and one whose memory is
 * not aligned goes through a bounce buffer piece by piece. An operation that finds no free entry or no bounce buffer waits
 * in a list; it never fails for that. What has no entry (clone) or no support in the file system (punch, zero) goes to a
 * thread of the pool.
 *
 * Direct I/O is used only where the file takes it at 512 bytes, the unit of io.h. A file that does not is refused with
 * -EOPNOTSUPP, and io_open() then takes `sync`.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "io/direct.h"
#include "io/loop.h"
#include "io/modules.h"
#include "io/page-cache.h"
#include "io/posix.h"

#define BOUNCES 4u
#define BOUNCE_LEN (64u * 1024)
#define TRANSFER_MAX (UINT64_C(1) << 30)
#define SUBMIT_EVERY 4u /* entries: the disk starts on the first while the loop still prepares the rest of the turn */

struct uring_file {
	struct posix_file posix;
	struct io_uring *ring;
	struct list waiting; /* for an entry or a bounce buffer */
	struct loop_task retry;
	char *bounces;
	unsigned bounces_free; /* bits */
	bool cannot_punch, cannot_zero;
	int cached; /* a descriptor that reads through the host's cache, once needed; or negative */
};

/* Lives in op->scratch. */
struct uring_op {
	struct loop_completion completion;
	uint64_t cursor; /* bytes done */
	char *bounce;    /* where this piece goes through, or NULL */
	bool cached;     /* a read that takes what the host's cache has, without waiting */
} __attribute__((may_alias));

_Static_assert(sizeof(struct uring_op) <= sizeof(((struct io_op *)0)->scratch), "scratch is too small");

static struct uring_file *uring_file(struct io_file *file)
{
	return container_of(posix_file(file), struct uring_file, posix);
}

static struct uring_op *uring_op(struct io_op *op)
{
	return (struct uring_op *)op->scratch;
}

static struct io_uring_sqe *uring_entry(struct uring_file *file)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(file->ring);

	if (sqe)
		return sqe;
	io_uring_submit(file->ring);
	return io_uring_get_sqe(file->ring);
}

/* Bounce buffers */

static bool uring_aligned(const struct io_op *op)
{
	return !((uintptr_t)op->buffer % op->file->memory_align);
}

static char *uring_bounce_get(struct uring_file *file)
{
	unsigned i;

	if (!file->bounces_free)
		return NULL;
	i = (unsigned)__builtin_ctz(file->bounces_free);
	file->bounces_free &= ~(1u << i);
	return file->bounces + i * BOUNCE_LEN;
}

static void uring_bounce_put(struct uring_file *file, struct io_op *op)
{
	struct uring_op *state = uring_op(op);

	if (!state->bounce)
		return;
	file->bounces_free |= 1u << ((unsigned)(state->bounce - file->bounces) / BOUNCE_LEN);
	state->bounce = NULL;
	if (!list_empty(&file->waiting))
		loop_defer(file->posix.file.loop, &file->retry);
}

/* Starting */

static void uring_prep_transfer(struct uring_file *file, struct io_op *op, struct io_uring_sqe *sqe)
{
	struct uring_op *state = uring_op(op);
	uint64_t len = min_u64(op->length - state->cursor, state->bounce ? BOUNCE_LEN : TRANSFER_MAX);
	char *buffer = (char *)op->buffer + state->cursor;
	uint64_t at = op->offset + state->cursor;
	int fd = state->cached ? file->cached : file->posix.fd;

	if (state->bounce && op->kind == IO_WRITE)
		memcpy(state->bounce, buffer, len);
	if (state->bounce)
		buffer = state->bounce;
	if (op->kind == IO_READ)
		io_uring_prep_read(sqe, fd, buffer, (unsigned)len, at);
	else
		io_uring_prep_write(sqe, fd, buffer, (unsigned)len, at);
	if (state->cached)
		sqe->rw_flags = RWF_NOWAIT;
}

static void uring_prep(struct uring_file *file, struct io_op *op, struct io_uring_sqe *sqe)
{
	switch (op->kind) {
	case IO_READ:
	case IO_WRITE:
		uring_prep_transfer(file, op, sqe);
		break;
	case IO_ZERO:
	case IO_PUNCH:
		io_uring_prep_fallocate(sqe, file->posix.fd, posix_fallocate_mode(op->kind), (off_t)op->offset,
					(off_t)op->length);
		break;
	case IO_DATASYNC:
		io_uring_prep_fsync(sqe, file->posix.fd, IORING_FSYNC_DATASYNC);
		break;
	case IO_CLONE: /* went to a thread */
		break;
	}
	io_uring_sqe_set_data(sqe, &uring_op(op)->completion);
}

/* The ring had no entry: try again in the next turn, when the loop has submitted. */
static void uring_wait_for_entry(struct uring_file *file, struct io_op *op)
{
	list_push_back(&file->waiting, &op->node);
	loop_defer(file->posix.file.loop, &file->retry);
}

static void uring_start(struct uring_file *file, struct io_op *op)
{
	struct uring_op *state = uring_op(op);
	bool transfer = op->kind == IO_READ || op->kind == IO_WRITE;
	struct io_uring_sqe *sqe;

	if (transfer && !state->bounce && !uring_aligned(op)) {
		state->bounce = uring_bounce_get(file);
		if (!state->bounce) {
			list_push_back(&file->waiting, &op->node);
			return;
		}
	}
	sqe = uring_entry(file);
	if (!sqe) {
		uring_wait_for_entry(file, op);
		return;
	}
	uring_prep(file, op, sqe);
	/* What does not go now goes with the wait of the loop. */
	if (io_uring_sq_ready(file->ring) >= SUBMIT_EVERY)
		(void)io_uring_submit(file->ring);
}

static void uring_retry(struct loop_task *task)
{
	struct uring_file *file = container_of(task, struct uring_file, retry);
	struct list now, *node;

	list_init(&now);
	list_move_all(&now, &file->waiting);
	while ((node = list_pop(&now)))
		uring_start(file, container_of(node, struct io_op, node));
}

/* Completing */

static void uring_finish(struct uring_file *file, struct io_op *op, int result)
{
	uring_bounce_put(file, op);
	op->done(op, result);
}

static void uring_read_part(struct uring_file *file, struct io_op *op, unsigned n)
{
	struct uring_op *state = uring_op(op);
	char *to = (char *)op->buffer + state->cursor;

	if (state->bounce)
		memcpy(to, state->bounce, n);
	state->cursor += n;
	/* A piece of a sector is the ragged end of the file. */
	if (!n || n % 512) {
		memset(to + n, 0, op->length - state->cursor);
		state->cursor = op->length;
	}
	if (state->cursor == op->length)
		uring_finish(file, op, 0);
	else
		uring_start(file, op);
}

/* What the cache had; the rest comes from the disk. */
static void uring_cached_part(struct uring_file *file, struct io_op *op, int result)
{
	struct uring_op *state = uring_op(op);

	state->cached = false;
	if (result > 0 && !state->bounce)
		state->cursor += (unsigned)result - (unsigned)result % 512;
	if (state->cursor == op->length)
		uring_finish(file, op, 0);
	else
		uring_start(file, op);
}

static void uring_write_part(struct uring_file *file, struct io_op *op, unsigned n)
{
	struct uring_op *state = uring_op(op);

	/* A write that stops inside a sector is done again from the sector's start. */
	state->cursor += n - n % 512;
	if (state->cursor == op->length)
		uring_finish(file, op, 0);
	else if (n < 512)
		uring_finish(file, op, -ENOSPC);
	else
		uring_start(file, op);
}

static bool uring_cannot(struct uring_file *file, enum io_kind kind)
{
	return kind == IO_PUNCH ? file->cannot_punch : kind == IO_ZERO && file->cannot_zero;
}

/* Sends a punch or zero that the file system does not know to a thread that writes zeros, and remembers. */
static void uring_without_fallocate(struct uring_file *file, struct io_op *op)
{
	if (op->kind == IO_PUNCH)
		file->cannot_punch = true;
	else
		file->cannot_zero = true;
	posix_submit(op);
}

static void uring_completed(struct loop_completion *completion, int result, unsigned flags)
{
	struct uring_op *state = container_of(completion, struct uring_op, completion);
	struct io_op *op = container_of((void *)state, struct io_op, scratch);
	struct uring_file *file = uring_file(op->file);

	(void)flags;
	if (state->cached)
		uring_cached_part(file, op, result);
	else if (result == -EINTR || result == -EAGAIN)
		uring_wait_for_entry(file, op);
	else if (result < 0 && (op->kind == IO_PUNCH || op->kind == IO_ZERO) && posix_cannot(result))
		uring_without_fallocate(file, op);
	else if (result < 0)
		uring_finish(file, op, result);
	else if (op->kind == IO_READ)
		uring_read_part(file, op, (unsigned)result);
	else if (op->kind == IO_WRITE)
		uring_write_part(file, op, (unsigned)result);
	else
		uring_finish(file, op, 0);
}

/* Whether the host's cache should be asked first. */
static bool uring_in_cache(struct uring_file *file, const struct io_op *op)
{
	if (op->kind != IO_READ || !op->file->from_cache || !op->file->direct)
		return false;
	if (file->cached < 0)
		file->cached = page_cache_open(file->posix.fd);
	return file->cached >= 0 && page_cache_has(file->cached, op->offset, op->length);
}

static void uring_submit(struct io_op *op)
{
	struct uring_file *file = uring_file(op->file);

	if (op->kind == IO_CLONE || uring_cannot(file, op->kind)) {
		posix_submit(op);
		return;
	}
	*uring_op(op) = (struct uring_op){ .completion = { .done = uring_completed }, .cached = uring_in_cache(file, op) };
	uring_start(file, op);
}

/* Opening */

static int uring_usable(struct ploop_error *err)
{
	struct loop *loop;
	int r = loop_new("uring", 1, &loop, err);

	if (!r)
		loop_free(loop);
	return r;
}

static int uring_prepare(struct uring_file *self, unsigned flags, struct ploop_error *err)
{
	int r;

	list_init(&self->waiting);
	self->retry.run = uring_retry;
	self->bounces_free = (1u << BOUNCES) - 1;
	self->bounces = io_buffer_new(BOUNCES * BOUNCE_LEN);
	if (!self->bounces)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "cannot open %s", self->posix.file.path);
	if (!(flags & IO_BUFFERED)) {
		r = direct_begin(&self->posix, err);
		if (r)
			return r;
	}
	return flags & IO_RDWR ? io_pool_get(self->posix.file.loop, 1, &self->posix.pool, err) : 0;
}

static int uring_open(struct loop *loop, const char *path, unsigned flags, struct io_file **ret,
		      struct ploop_error *err)
{
	struct uring_file *self;
	int r;

	if (!loop_ring(loop))
		return error_set(err, -EOPNOTSUPP, PLOOP_EXIT_SYS, "%s: the uring module needs io_uring", path);
	self = calloc(1, sizeof(*self));
	if (!self)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "cannot open %s", path);
	self->ring = loop_ring(loop);
	self->cached = -EBADF;
	r = posix_open(&self->posix, &io_uring_ops, loop, path, flags, err);
	if (r) {
		free(self);
		return r;
	}
	r = uring_prepare(self, flags, err);
	if (r) {
		io_close(&self->posix.file);
		return r;
	}
	*ret = &self->posix.file;
	return 0;
}

static void uring_close(struct io_file *file)
{
	struct uring_file *self = uring_file(file);

	io_buffer_free(self->bounces, BOUNCES * BOUNCE_LEN);
	if (self->cached >= 0)
		close(self->cached);
	posix_close(&self->posix);
	free(self);
}

const struct io_ops io_uring_ops = {
	.name = "uring",
	.summary = "direct I/O by io_uring; the fastest",
	.usable = uring_usable,
	.open = uring_open,
	.close = uring_close,
	.submit = uring_submit,
	.pread = direct_pread,
	.pwrite = direct_pwrite,
	.sync = posix_sync,
	.size = posix_size,
	.truncate = posix_truncate,
	.next_data = posix_next_data,
	.allocated = posix_allocated,
};
