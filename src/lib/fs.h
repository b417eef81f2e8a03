/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fs.h - the file system on a device: found, checked, mounted, unmounted. */
#ifndef LIB_FS_H
#define LIB_FS_H

#include <limits.h>
#include <stdbool.h>

struct ploop_error;

/* `name` is "ploop0", `node` the kernel's device. Sees to it that the partitions of a new device are there. */
int fs_partitions(const char *name, const char *node, struct ploop_error *err);

/* Where the file system is: partition 1 when there is a partition table, else the device itself. */
int fs_find(const char *name, const char *node, char ret[PATH_MAX], struct ploop_error *err);

/* What the file system at `path` is; "" when there is none that blkid knows. */
#define FS_TYPE 32
int fs_probe(const char *path, char type[FS_TYPE], struct ploop_error *err);

/* Preens the file system; *ret_status is the exit status of the checker. */
int fs_check(const char *path, int *ret_status, struct ploop_error *err);

struct fs_mount {
	const char *path;    /* the block device */
	const char *target;  /* absolute, no symlinks */
	const char *type;    /* NULL: what is found there */
	const char *options; /* NULL: none */
	bool read_only;      /* the device is: the journal is not replayed */
};
int fs_mount(const struct fs_mount *what, struct ploop_error *err);

/*
 * Opens the root of the file system on the block device `path` in a mount that is ours alone and has no place: it goes when
 * *ret_fd is closed, also because we died. One that is mounted elsewhere is the same file system. `type` may be NULL.
 */
int fs_open_root(const char *path, const char *type, int *ret_fd, struct ploop_error *err);

enum fs_umount_how {
	FS_UMOUNT_WAIT, /* tries again for some seconds when it is busy */
	FS_UMOUNT_LAZY,
	FS_UMOUNT_DEAD, /* once, then lazily */
};
int fs_umount(const char *target, enum fs_umount_how how, struct ploop_error *err);

#endif
