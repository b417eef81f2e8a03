/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs-resize.h - an ext file system that is not mounted gets another size, by e2fsck and resize2fs. It does not survive that these
 * are interrupted: work on a copy.
 */
#ifndef LIB_FS_RESIZE_H
#define LIB_FS_RESIZE_H

#include <stdbool.h>
#include <stdint.h>

struct ploop_error;

enum fs_checking {
	FS_CHECK_PREEN, /* repair what is safe to, if it wants to be looked at */
	FS_CHECK_FORCE, /* the same, and look at all of it */
	FS_CHECK_ONLY,  /* look at all of it, and change nothing */
};
int fs_check_ext(const char *partition, enum fs_checking how, struct ploop_error *err);

/* The smallest that resize2fs makes it: blocks. */
int fs_minimum(const char *partition, uint64_t *ret_blocks, struct ploop_error *err);

/* To `size` bytes; it must have been checked by force before. */
int fs_resize(const char *partition, uint64_t size, struct ploop_error *err);

#endif
