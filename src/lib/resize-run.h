/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* resize-run.h - a disk that nobody uses, served for the time of a resize. It ends with this process, however that ends. */
#ifndef LIB_RESIZE_RUN_H
#define LIB_RESIZE_RUN_H

#include "lib/change.h"
#include "lib/resize-disk.h"

struct resize_run {
	char device[64]; /* "/dev/ploop0"; "" when it does not run */
	int connection;
	struct resize_disk disk;
};

#define RESIZE_RUN_NONE { .connection = -EBADF, .disk = RESIZE_DISK_NONE }

/* Starts it, with `overlay` (may be NULL), a delta in its folder, on top of its images; and looks at it. The caller ends it. */
int resize_run_start(const struct change *change, const char *overlay, struct resize_run *ret, struct ploop_error *err);

/* All that was written is in the images then. Nothing to do when it does not run. */
int resize_run_end(struct resize_run *run, struct ploop_error *err);

#endif
