/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* superblock-fields.h - where the numbers stand in the superblocks of ext and XFS. */
#ifndef LIB_SUPERBLOCK_FIELDS_H
#define LIB_SUPERBLOCK_FIELDS_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

/* Bytes of an ext superblock, which lies 1 KiB into the file system. */
enum {
	EXT_START = 1024,
	EXT_INODES = 0,
	EXT_BLOCKS = 4,
	EXT_FREE_BLOCKS = 12,
	EXT_FREE_INODES = 16,
	EXT_BLOCK_LOG = 24, /* of KiB */
	EXT_CLUSTER_LOG = 28,
	EXT_GROUP_BLOCKS = 32,
	EXT_GROUP_INODES = 40,
	EXT_MAGIC = 56,
	EXT_STATE = 58,
	EXT_COMPAT = 92,
	EXT_INCOMPAT = 96,
	EXT_RO_COMPAT = 100,
	EXT_RESERVED_TABLES = 206, /* blocks for the descriptors of groups to come */
	EXT_BLOCKS_HIGH = 336,
	EXT_FREE_BLOCKS_HIGH = 344,
	EXT_OVERHEAD = 584, /* clusters; 0: not known */
};
#define EXT_MAGIC_VALUE 0xef53
#define EXT_STATE_ERRORS 2u
#define EXT_INCOMPAT_RECOVER 0x4u /* the journal has to be replayed */
#define EXT_INCOMPAT_64BIT 0x80u
#define EXT_RO_COMPAT_BIGALLOC 0x200u
#define EXT_COMPAT_JOURNAL 0x4u
#define EXT_INCOMPAT_EXTENTS 0x40u

/* Bytes of an XFS superblock; numbers are big-endian. */
enum {
	XFS_BLOCK = 4,
	XFS_BLOCKS = 8,
	XFS_LOG_START = 48,
	XFS_LOG_BLOCKS = 96,
	XFS_INODES_LOG = 123, /* of inodes in a block */
	XFS_INODES_PERCENT = 127,
	XFS_INODES = 128,
	XFS_FREE_INODES = 136,
	XFS_FREE_BLOCKS = 144,
};

static inline uint32_t be32_get(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return be32toh(v);
}

static inline uint64_t be64_get(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return be64toh(v);
}

#endif
