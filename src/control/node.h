/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * node.h - the names of a device: /dev/ploopN and /dev/ploopNpM are symlinks to what the front end provides.
 *
 * /dev/ploopNp1 is always made, even while there is no partition: it then points nowhere, and works as soon as somebody makes
 * one. Where nobody makes nodes for partitions (no devtmpfs), it is a block device node of our own.
 */
#ifndef CONTROL_NODE_H
#define CONTROL_NODE_H

#include <limits.h>

struct ploop_error;

/* The path of the device, or of its partition when `partition` is not 0. */
int node_path(const char *name, unsigned partition, char ret[PATH_MAX]);

/* 0 when the name is free or the symlink there is stale; else -EEXIST. */
int node_check(const char *name, struct ploop_error *err);

/* Makes the names. `node` is "/dev/loop3". Replaces stale symlinks. */
int node_make(const char *name, const char *node, struct ploop_error *err);

/* Makes the name of partition 1 again, after the kernel got to know the partition. */
int node_partition(const char *name, const char *node, struct ploop_error *err);

/* Removes them: symlinks, and partition nodes of our own making. Anything else stays. */
void node_remove(const char *name);

#endif
