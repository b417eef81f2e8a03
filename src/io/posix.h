/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* posix.h - for this room: what the modules share that keep a file behind a descriptor. */
#ifndef IO_POSIX_H
#define IO_POSIX_H

#include "io/io.h"
#include "io/pool.h"

struct posix_file {
	struct io_file file;
	int fd;
	struct io_pool *pool; /* NULL when the file needs none */
};

static inline struct posix_file *posix_file(struct io_file *file)
{
	return container_of(file, struct posix_file, file);
}

/* Opens a regular file into `self` (buffered, so far) and fills what io_file says about it. */
int posix_open(struct posix_file *self, const struct io_ops *ops, struct loop *loop, const char *path, unsigned flags,
	       struct ploop_error *err);
/* Closes what posix_open() opened; the memory of `self` is the caller's. */
void posix_close(struct posix_file *self);

/* Buffered; a read beyond the end of the file gives zeros. */
int posix_pread(struct io_file *file, void *buffer, size_t len, uint64_t offset);
int posix_pwrite(struct io_file *file, const void *buffer, size_t len, uint64_t offset);
int posix_sync(struct io_file *file);
int posix_size(struct io_file *file, uint64_t *ret);
int posix_truncate(struct io_file *file, uint64_t size);
int posix_next_data(struct io_file *file, uint64_t offset, uint64_t *ret_start, uint64_t *ret_end);
int posix_allocated(struct io_file *file, uint64_t *ret);

/* Does an operation on a thread of the file's pool by calls that block, then calls op->done on the loop. */
void posix_submit(struct io_op *op);

/* Does an operation by calls that block. What it returns for IO_CLONE goes through posix_clone_result(), on the loop. */
int posix_perform(struct io_op *op);
int posix_clone_result(struct io_file *file, int result);

/* The mode for fallocate() of IO_ZERO and IO_PUNCH. */
int posix_fallocate_mode(enum io_kind kind);

/* Whether the answer of fallocate() means that the file system cannot do it at all. */
bool posix_cannot(int result);

#endif
