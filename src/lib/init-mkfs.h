/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* init-mkfs.h - makes the file system of a new disk on a scratch file. Needs neither root nor a device. */
#ifndef LIB_INIT_MKFS_H
#define LIB_INIT_MKFS_H

#include <stdbool.h>
#include <stdint.h>

struct ploop_error;

struct mkfs_type {
	const char *name;
	bool ext;                      /* of the ext2 family: libext2fs can write into it */
	unsigned label;                /* longest label in bytes */
	uint32_t block_min, block_max; /* bytes of a block */
	unsigned size_min;             /* MiB; what its tool may refuse is smaller */
};

/* NULL when there is none of that name. "none" is not one. */
const struct mkfs_type *mkfs_type_find(const char *name);

struct mkfs_request {
	const struct mkfs_type *type;
	uint64_t size;            /* bytes of the partition */
	uint32_t block;           /* bytes of a block of the file system */
	uint64_t bytes_per_inode; /* ext; ignored when `inodes` is given */
	uint64_t inodes;          /* ext; 0: by bytes_per_inode */
	const char *label;        /* NULL: none */
	bool lazy;                /* leave the initialisation of tables to the kernel */
};

/* The largest file system that the original makes. */
#define FS_SIZE_MAX (50ull << 40)

/* Checks what the tools would complain about less clearly. */
int mkfs_check(const struct mkfs_request *request, struct ploop_error *err);

/* Runs mke2fs or mkfs.xfs on `fd`, a file of request->size bytes that reads as zeros. `name` is for messages. */
int mkfs_run(int fd, const char *name, const struct mkfs_request *request, struct ploop_error *err);

#endif
