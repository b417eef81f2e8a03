/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fsmap.h - what a mounted file system does not use, as it says itself. ext4 and XFS do. */
#ifndef LIB_FSMAP_H
#define LIB_FSMAP_H

struct ploop_error;
struct ranges;

/* Adds its free stretches, in bytes of its block device. `root` is anything of it. -EOPNOTSUPP when it does not tell. */
int fsmap_free(int root, struct ranges *ranges, struct ploop_error *err);

#endif
