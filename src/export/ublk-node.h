/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ublk-node.h - the two nodes of a ublk device, and who has the block device open. All of this blocks. */
#ifndef EXPORT_UBLK_NODE_H
#define EXPORT_UBLK_NODE_H

#include <stdint.h>

#define UBLK_NODE 32

void ublk_node_name(uint32_t id, char ret[UBLK_NODE]);

/* The files of the image are on devices that have schedulers of their own; one above them only costs. */
void ublk_unschedule(uint32_t id);

/* Opens "/dev/ublkcN", where requests come from. A descriptor or a negative errno; -EBUSY while another server has it. */
int ublk_open_channel(uint32_t id);

/*
 * Opens the block device so that nobody can mount it or claim it otherwise, and brings what the kernel's cache holds to the server.
 * -EBUSY when somebody has it or one of its partitions open: the kernel says so of mounts, swap and stacked devices; of processes
 * that only read or write, /proc does, as far as it can be seen from here. A descriptor, which must be closed before the device is
 * removed, or a negative errno; -ENODEV when there is no such device any more.
 */
int ublk_claim(uint32_t id);

#endif
