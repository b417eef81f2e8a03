/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuse-mount.h - a FUSE file system that is never attached to any folder, with one file in it. It lives as long as the
 * descriptor or an open file of it does, so nothing is left behind when the process dies. The file has a name only because
 * the kernel shows it as what the loop device is made of.
 */
#ifndef EXPORT_FUSE_MOUNT_H
#define EXPORT_FUSE_MOUNT_H

#include <stdbool.h>

struct ploop_error;

/* Can this host do it? */
int fuse_mount_usable(struct ploop_error *err);

/* Opens /dev/fuse, not blocking. */
int fuse_mount_channel(struct ploop_error *err);

/* Makes the file system of the channel `fd`. Returns a descriptor (O_PATH) of its root. Does not wait for the server. */
int fuse_mount_new(int fd, const char *name, struct ploop_error *err);

#endif
