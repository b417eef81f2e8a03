/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* inline.c - see inline.h. Buffered calls, as in sync.c. */
#include "io/inline.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/error.h"
#include "io/modules.h"
#include "io/posix.h"

/* Of the thread, not of a file: one engine is entered by many threads, and one operation leads to others. */
static _Thread_local struct list *collected;

void io_inline_collect(struct list *ops)
{
	collected = ops;
}

static void inline_submit(struct io_op *op)
{
	assert(collected);
	list_push_back(collected, &op->node);
}

int io_inline_perform(struct io_op *op)
{
	if (op->kind == IO_CLONE && !op->file->can_clone)
		return -EOPNOTSUPP;
	return posix_perform(op);
}

void io_inline_done(struct io_op *op, int result)
{
	op->done(op, op->kind == IO_CLONE ? posix_clone_result(op->file, result) : result);
}

static int inline_open(struct loop *loop, const char *path, unsigned flags, struct io_file **ret,
		       struct ploop_error *err)
{
	struct posix_file *self = malloc(sizeof(*self));
	int r;

	if (!self)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "cannot open %s", path);
	r = posix_open(self, &io_inline_ops, loop, path, flags, err);
	if (r) {
		free(self);
		return r;
	}
	*ret = &self->file;
	return 0;
}

static void inline_close(struct io_file *file)
{
	posix_close(posix_file(file));
	free(posix_file(file));
}

static int inline_usable(struct ploop_error *err)
{
	(void)err;
	return 0;
}

const struct io_ops io_inline_ops = {
	.name = "inline",
	.summary = "buffered I/O on the threads of the caller",
	.usable = inline_usable,
	.open = inline_open,
	.close = inline_close,
	.submit = inline_submit,
	.pread = posix_pread,
	.pwrite = posix_pwrite,
	.sync = posix_sync,
	.size = posix_size,
	.truncate = posix_truncate,
	.next_data = posix_next_data,
	.allocated = posix_allocated,
};
