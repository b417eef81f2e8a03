/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * init-ext.h - puts files into a new ext3 or ext4 file system that lies in a file: no mount, no root.
 *
 * Inodes and data are written as they come. Names are kept in memory and every directory is written once, by ext_close(): so
 * a directory of a million names costs no more than a million names, and a name that comes twice (tar) replaces the first.
 */
#ifndef LIB_INIT_EXT_H
#define LIB_INIT_EXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

struct ext;
struct ext_node;
struct ploop_error;

/* What a new file is. */
struct ext_stat {
	uint32_t mode; /* type and permissions, as in struct stat */
	uint32_t uid, gid;
	uint32_t major, minor; /* devices */
	uint64_t size;         /* regular files */
	const char *target;    /* symbolic links */
	struct timespec atime, mtime, ctime, crtime;
};

/* Opens what mke2fs made on `fd`. `name` is for messages and outlives the ext. */
int ext_open(int fd, const char *name, struct ext **ret, struct ploop_error *err);

/* Writes all directories and closes. *ret_large: some directory is worth an index. On failure the ext is gone as well. */
int ext_close(struct ext *ext, bool *ret_large, struct ploop_error *err);

/* Closes without writing more. NULL is accepted. */
void ext_abandon(struct ext *ext);

/* What is free: bytes and inodes. */
void ext_free_space(const struct ext *ext, uint64_t *ret_bytes, uint64_t *ret_inodes);

/* Makes `path` (relative to the root; folders on the way are made when missing). What had this name before is replaced;
 * a directory stays and takes the new attributes. */
int ext_add(struct ext *ext, const char *path, const struct ext_stat *stat, struct ext_node **ret,
	    struct ploop_error *err);

/* A second name for a file. */
int ext_link(struct ext *ext, const char *path, struct ext_node *target, struct ploop_error *err);

/* NULL when there is no such path. */
struct ext_node *ext_find(struct ext *ext, const char *path);

/* Content of a regular file, in ascending order of offsets; what is left out is a hole. ext_data_end() after the last. */
int ext_data(struct ext *ext, struct ext_node *node, const void *data, size_t len, uint64_t offset,
	     struct ploop_error *err);
int ext_data_end(struct ext *ext, struct ext_node *node, struct ploop_error *err);

/* Sets extended attributes of one file, all in one go. Names as in setxattr(2), POSIX ACLs as its "system." ones. */
struct ext_xattr {
	const char *name;
	const void *value;
	size_t len;
};
int ext_set_xattrs(struct ext *ext, struct ext_node *node, const struct ext_xattr *attrs, unsigned n,
		   struct ploop_error *err);

#endif
