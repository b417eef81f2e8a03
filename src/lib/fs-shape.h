/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fs-shape.h - how large a file system is, and how large it could be: what a resize has to know. */
#ifndef LIB_FS_SHAPE_H
#define LIB_FS_SHAPE_H

#include <stdbool.h>
#include <stdint.h>

struct ploop_error;

#define FS_SHAPE_HEAD 4096u /* bytes of a file system that tell all of this */

enum fs_kind {
	FS_UNKNOWN,
	FS_EXT, /* ext2, ext3 and ext4 */
	FS_XFS,
};

struct fs_shape {
	enum fs_kind kind;
	const char *type; /* static text, "ext4"; NULL: unknown */
	uint32_t block;   /* bytes */
	uint64_t blocks;  /* in all: block * blocks is its size */
	uint64_t limit;   /* bytes that it can grow to */
	uint64_t inodes;  /* ext: as many as there are; 0: made when needed */
	/* ext */
	uint32_t group_blocks, group_inodes;
	bool recover; /* its journal was not replayed */
	bool errors;  /* wants a check */
	/* XFS */
	uint8_t inodes_percent;
};

/* From the first FS_SHAPE_HEAD bytes. What is not known, or makes no sense, is FS_UNKNOWN. */
void fs_shape_parse(const uint8_t head[FS_SHAPE_HEAD], struct fs_shape *ret);

/* Of the file system on `partition`. `mount_fd` (-1: it is not mounted) is an open file or folder in it. */
int fs_shape_look(const char *partition, int mount_fd, struct fs_shape *ret, struct ploop_error *err);

static inline uint64_t fs_shape_size(const struct fs_shape *shape)
{
	return shape->block * shape->blocks;
}

/* ext: inodes that it will have when it has grown to so many bytes. */
uint64_t fs_shape_inodes_at(const struct fs_shape *shape, uint64_t size);

#endif
