/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* superblock.h - how full the file system on a disk is, as its superblock says, without mounting it. */
#ifndef LIB_SUPERBLOCK_H
#define LIB_SUPERBLOCK_H

#include <stddef.h>
#include <stdint.h>

#include <ploop/ploop.h>

/* How to read the disk. 0 or a negative errno. */
struct superblock_source {
	int (*read)(void *data, void *buffer, size_t len, uint64_t offset);
	void *data;
	uint64_t size; /* bytes of the disk */
};

/*
 * Looks in the first partition of a GPT, or at the start of a disk that has none, for ext2, 3 and 4 and for XFS.
 * -ENODATA when there is none of them. ret->approximate is set when the superblock itself says that it was left
 * behind by a crash.
 */
int superblock_read(const struct superblock_source *source, struct ploop_fs *ret);

/* Byte where that file system starts, or would. */
int superblock_find(const struct superblock_source *source, uint64_t *ret);

#endif
