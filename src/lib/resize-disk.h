/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* resize-disk.h - how what is on a disk is laid out, running or not: a partition table, the last partition, a file system. */
#ifndef LIB_RESIZE_DISK_H
#define LIB_RESIZE_DISK_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/fs-shape.h"
#include "lib/table.h"

struct ploop_disk;
struct ploop_error;

struct resize_disk {
	struct ploop_disk *files; /* opened for reading: nobody serves it. NULL: it runs */
	char name[PATH_MAX];      /* "ploop0"; of files, for messages only */
	char node[PATH_MAX]; /* the kernel's device */
	int fd;              /* of the node, without the page cache */
	uint64_t size;       /* bytes of the device */
	uint32_t cluster;
	bool has_table; /* else the file system starts at the first byte */
	struct table table;
	uint64_t start, end;      /* bytes of the device between which the file system may lie */
	char partition[PATH_MAX]; /* the block device that it lies on */
	int root;                 /* of the file system, opened when wanted; -EBADF */
	struct fs_shape fs;
};

#define RESIZE_DISK_NONE { .fd = -EBADF, .root = -EBADF }

/* Looks at a disk that nobody serves: nothing can be changed, and `partition` is "". What a journal holds is not seen. */
int resize_disk_peek(const char *path, struct resize_disk *ret, struct ploop_error *err);

/* Looks at a device, in `ret` that is RESIZE_DISK_NONE. The caller closes. */
int resize_disk_open(const char *name, const char *node, uint32_t cluster, struct resize_disk *ret,
		     struct ploop_error *err);
/* The same again, when something has changed. */
int resize_disk_look(struct resize_disk *disk, struct ploop_error *err);
void resize_disk_close(struct resize_disk *disk);

/* Bytes that the file system may have on a disk of `size` bytes; 0: that is too small. */
uint64_t resize_disk_room(const struct resize_disk *disk, uint64_t size);

/* The smallest disk whose file system may have `bytes`. */
uint64_t resize_disk_for(const struct resize_disk *disk, uint64_t bytes);

/*
 * The partition, in the table and for the kernel, becomes as large as on a disk of `size` bytes; the table is that of a disk of
 * `table` bytes. Nothing to do without a table.
 */
int resize_disk_partition(struct resize_disk *disk, uint64_t size, uint64_t table, struct ploop_error *err);

/* Opens the file system, mounted or not, until the disk is closed; from then on it says itself how large it is. */
int resize_disk_open_fs(struct resize_disk *disk, struct ploop_error *err);

/* The file system grows to `bytes`. */
int resize_disk_grow_fs(struct resize_disk *disk, uint64_t bytes, struct ploop_error *err);

#endif
