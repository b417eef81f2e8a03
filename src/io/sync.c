/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sync.c - the I/O module for any file system and any loop: buffered calls on a few threads.
 *
 * Used where io_uring is forbidden or direct I/O does not work at 512 bytes, for example on tmpfs.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/error.h"
#include "io/modules.h"
#include "io/posix.h"

/* More than two: a sync must not keep reads waiting. */
#define SYNC_THREADS 4

static int sync_usable(struct ploop_error *err)
{
	(void)err;
	return 0;
}

static int sync_open(struct loop *loop, const char *path, unsigned flags, struct io_file **ret, struct ploop_error *err)
{
	struct posix_file *self = malloc(sizeof(*self));
	int r;

	if (!self)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "cannot open %s", path);
	r = posix_open(self, &io_sync_ops, loop, path, flags, err);
	if (r) {
		free(self);
		return r;
	}
	if (loop)
		r = io_pool_get(loop, SYNC_THREADS, &self->pool, err);
	if (r) {
		io_close(&self->file);
		return r;
	}
	*ret = &self->file;
	return 0;
}

static void sync_close(struct io_file *file)
{
	posix_close(posix_file(file));
	free(posix_file(file));
}

const struct io_ops io_sync_ops = {
	.name = "sync",
	.summary = "buffered I/O on a few threads; any file system",
	.usable = sync_usable,
	.open = sync_open,
	.close = sync_close,
	.submit = posix_submit,
	.pread = posix_pread,
	.pwrite = posix_pwrite,
	.sync = posix_sync,
	.size = posix_size,
	.truncate = posix_truncate,
	.next_data = posix_next_data,
	.allocated = posix_allocated,
};
