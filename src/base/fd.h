/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fd.h - whole reads and writes on descriptors, and small files read and replaced at once. */
#ifndef BASE_FD_H
#define BASE_FD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Read `len` bytes at `offset`. Returns the bytes read (fewer only at the end of the file) or a negative errno. */
ssize_t fd_pread(int fd, void *buffer, size_t len, uint64_t offset);

/* Write all of `len` bytes at `offset`. Returns 0 or a negative errno. */
int fd_pwrite(int fd, const void *buffer, size_t len, uint64_t offset);

/* The same on a stream descriptor, at its own position. */
ssize_t fd_read(int fd, void *buffer, size_t len);
int fd_write(int fd, const void *buffer, size_t len);

/* Reads a file of at most `limit` bytes whole; adds a NUL. The caller frees. -EFBIG when it is longer. */
int fd_read_file(int dirfd, const char *path, size_t limit, char **ret, size_t *ret_len);

#endif
