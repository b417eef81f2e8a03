/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fs-grow.h - a mounted file system grows, by the kernel: it is journaled, so a crash leaves the old or the new size. */
#ifndef LIB_FS_GROW_H
#define LIB_FS_GROW_H

#include <stdint.h>

#include "lib/fs-shape.h"

/* Whether the kernel would let us: that of ext wants CAP_SYS_RESOURCE, which root in a container may not have. */
int fs_may_grow(const char *partition, const struct fs_shape *shape, struct ploop_error *err);

/*
 * Grows the file system `fd` lies in to `size` bytes, rounded down to what it can. Waits while it is frozen. Returns when the
 * growth is done; `ret` is its new shape.
 */
int fs_grow(int fd, const char *partition, const struct fs_shape *shape, uint64_t size, struct fs_shape *ret,
	    struct ploop_error *err);

#endif
