/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* recover.h - what a crash left in the images of a disk that nobody uses is put right, before they are merged or checked. */
#ifndef LIB_RECOVER_H
#define LIB_RECOVER_H

#include <stdbool.h>

#include "image/descriptor.h"

struct ploop_error;

/*
 * Of a snapshot and those below it, whether one holds clusters that are only partly there (device/partial.h). What cannot be read has
 * none.
 */
bool recover_is_needed(const struct descriptor *descriptor, const struct snapshot *snapshot, bool outside);

/*
 * Opens the disk for writing once, at a snapshot that nothing is made on and that lies on `snapshot` (the top, if that does), and
 * closes it: that completes all below it. `path` is the descriptor's.
 */
int recover_images(const char *path, const struct descriptor *descriptor, const struct snapshot *snapshot, bool outside,
		   struct ploop_error *err);

#endif
