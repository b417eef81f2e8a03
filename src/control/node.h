/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * node.h - the names of a device: /dev/ploopN and /dev/ploopNpM are symlinks to what the front end provides.
 *
 * Names of partitions come and go with the partitions. One that pointed nowhere would be a trap: who writes to it makes a
 * file in /dev, in the way of the kernel's node. Where nobody makes nodes for partitions (no devtmpfs), a name is a block
 * device node of our own.
 */
#ifndef CONTROL_NODE_H
#define CONTROL_NODE_H

#include <limits.h>

struct ploop_error;

#define NODE_PARTITIONS 15 /* that get a name of ours; for more there are the kernel's nodes */

/* The path of the device, or of its partition when `partition` is not 0. */
int node_path(const char *name, unsigned partition, char ret[PATH_MAX]);

/* 0 when the name is free or the symlink there is stale; else -EEXIST. */
int node_check(const char *name, struct ploop_error *err);

/* Makes the names. `node` is "/dev/loop3". Replaces stale symlinks. */
int node_make(const char *name, const char *node, struct ploop_error *err);

/* Makes the names of partitions that are new, and removes those of partitions that are gone. */
int node_sync(const char *name, const char *node, struct ploop_error *err);

/* Removes them: symlinks, and partition nodes of our own making. Anything else stays. */
void node_remove(const char *name);

#endif
