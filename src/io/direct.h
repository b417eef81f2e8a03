/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* direct.h - for this room: a descriptor with direct I/O, and calls that block on it, of any alignment. */
#ifndef IO_DIRECT_H
#define IO_DIRECT_H

#include "io/posix.h"

/* Makes the descriptor direct; -EOPNOTSUPP when the file does not take direct I/O at 512 bytes. */
int direct_begin(struct posix_file *self, struct ploop_error *err);

int direct_pread(struct io_file *file, void *buffer, size_t len, uint64_t offset);
int direct_pwrite(struct io_file *file, const void *buffer, size_t len, uint64_t offset);

#endif
