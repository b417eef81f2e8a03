/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* init-ext-private.h - shared by the files that implement init-ext.h. */
#ifndef LIB_INIT_EXT_PRIVATE_H
#define LIB_INIT_EXT_PRIVATE_H

#include <stdbool.h>
#include <sys/stat.h>

#include <ext2fs/ext2fs.h>

#include "lib/init-ext.h"

/* A name. Several may share an inode. */
struct ext_node {
	struct ext_node *parent;  /* the root: itself */
	struct ext_node *bucket;  /* next of the same hash */
	struct ext_node *child;   /* first of a directory */
	struct ext_node *sibling; /* next in the parent */
	ext2_ino_t ino;
	uint32_t hash;
	uint8_t type; /* EXT2_FT_... */
	bool written; /* a directory that mke2fs wrote, and nothing was added to */
	uint8_t len;
	char name[];
};

struct ext {
	ext2_filsys fs;
	const char *name; /* for messages */
	const char *path; /* being worked on, for messages */
	struct ext_node *root;
	struct ext_node **table; /* all names but the root, by hash of parent and name */
	size_t buckets, names;   /* buckets: a power of two */

	/* The file whose content is coming: a piece of it that is not yet on the disk. */
	struct {
		struct ext_node *node;
		char *buffer;
		uint64_t start; /* of the piece; a multiple of the block size */
		size_t used;
	} data;
};

#define EXT_PIECE (1024u * 1024)

/* Says what libext2fs could not do, for the path being worked on. 0 stays 0. */
int ext_error(const struct ext *ext, errcode_t code, struct ploop_error *err);

/* init-ext.c: an inode. */
int ext_inode_new(struct ext *ext, const struct ext_node *parent, const struct ext_stat *stat, ext2_ino_t *ret_ino,
		  struct ploop_error *err);
int ext_inode_update(struct ext *ext, ext2_ino_t ino, const struct ext_stat *stat, struct ploop_error *err);
/* One name less; with the last the inode and its blocks are free again. */
int ext_inode_unlink(struct ext *ext, ext2_ino_t ino, struct ploop_error *err);

/* init-ext-data.c: blocks `start` to `start + count` of an inode, taken and written. */
int ext_blocks_write(struct ext *ext, ext2_ino_t ino, uint64_t start, uint64_t count, const char *data,
		     int (*write)(struct ext *ext, ext2_ino_t ino, blk64_t block, unsigned count, const char *data));

/* init-ext-dir.c */
int ext_names_init(struct ext *ext);
void ext_names_fini(struct ext *ext);
int ext_names_write(struct ext *ext, bool *ret_large, struct ploop_error *err);

#endif
