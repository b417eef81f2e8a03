/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ext-free.h - what an ext2, 3 or 4 file system that nobody has mounted does not use. */
#ifndef LIB_EXT_FREE_H
#define LIB_EXT_FREE_H

#include <stdint.h>

struct ploop_error;
struct ranges;
struct superblock_source;

/*
 * Adds the free stretches of the file system that begins at byte `start`, in bytes of the disk. -EUCLEAN when it was not
 * unmounted cleanly, so that it cannot be believed. Checksums are checked where it has them.
 */
int ext_free(const struct superblock_source *source, uint64_t start, struct ranges *ranges, struct ploop_error *err);

#endif
