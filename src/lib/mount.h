/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* mount.h - the first half of ploop_mount(), for those who want a device for the time of their own work only. */
#ifndef LIB_MOUNT_H
#define LIB_MOUNT_H

#include "control/state.h"

struct ploop_mount;

/*
 * Starts a ploopd for a disk. The device goes when *ret_connection is closed, also because we died, unless spawn_keep() was
 * called before. The caller clears *ret.
 */
int mount_start(const struct ploop_mount *what, struct device_state *ret, int *ret_connection, struct ploop_error *err);

#endif
