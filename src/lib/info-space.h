/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* info-space.h - of the room that a disk takes on the host, what its file system does not need any more. */
#ifndef LIB_INFO_SPACE_H
#define LIB_INFO_SPACE_H

#include <ploop/ploop.h>

struct superblock_source;

/*
 * Fills reclaimable and balloon of `ret`, or leaves them unknown. `source` reads the disk as its file system is now, `disk` knows
 * where it lies in files.
 */
void info_space(struct ploop_disk *disk, const struct superblock_source *source, struct ploop_info *ret);

#endif
