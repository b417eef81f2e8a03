/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* namespaces.h - where a device is mounted, in whatever mount namespace: a container's may be the only one. */
#ifndef LIB_NAMESPACES_H
#define LIB_NAMESPACES_H

#include "lib/blockdev.h"

/* One mount of the device, as process `pid` ("self" for us) sees it. Anything but 0 ends the search. */
typedef int (*namespaces_fn)(void *data, const char *pid, const struct mount_entry *entry);

/* Goes through every namespace that a process shows, our own first. Returns what `fn` returned, or a negative errno. */
int namespaces_mounts(const struct blockdev *device, namespaces_fn fn, void *data);

/*
 * Opens what is mounted there, read-only. -ESTALE when it cannot be reached: it is hidden below another mount, or gone. The
 * caller closes.
 */
int namespaces_open(const char *pid, const struct mount_entry *entry);

#endif
