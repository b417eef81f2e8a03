/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ext-look.h - an ext file system on a disk, looked into without mounting it: what of it is free, and how large its balloon is. */
#ifndef LIB_EXT_LOOK_H
#define LIB_EXT_LOOK_H

#include <stdint.h>

struct superblock_source;

struct ext_look {
	/* Gets each stretch of the disk that the file system does not use. A negative errno ends it. */
	int (*free_range)(void *data, uint64_t offset, uint64_t length);
	void *data;
	uint64_t balloon; /* result: bytes; 0 when there is none */
};

/* `start`: byte of the disk where the file system begins. -EINVAL for what libext2fs does not read. Nothing is written. */
int ext_look(const struct superblock_source *source, uint64_t start, struct ext_look *look);

#endif
