/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* freeze-mounts.h - the file systems that are mounted from a device, in whatever namespace. For freeze.c. */
#ifndef LIB_FREEZE_MOUNTS_H
#define LIB_FREEZE_MOUNTS_H

#include <sys/types.h>

struct open_mounts {
	int *fds; /* one for each file system: its mount point, open */
	dev_t *numbers;
	unsigned n;
};

/* Opens one mount point of each file system on the kernel's device `node` but the one with the number `except`. 0 or a
 * negative errno. The caller clears. */
int open_mounts_find(const char *node, dev_t except, struct open_mounts *ret);
void open_mounts_clear(struct open_mounts *mounts);

#endif
