/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sim-disk-private.h - what sim-disk.c and sim-cut.c share. */
#ifndef IO_SIM_DISK_PRIVATE_H
#define IO_SIM_DISK_PRIVATE_H

#include "io/sim-disk.h"

/* A copy of one's own; of zeros when `page` is NULL. */
struct sim_page *sim_page_copy(const struct sim_page *page);

/* sim_table_swap() that counts the disk's space. */
struct sim_page *sim_inode_swap(struct sim_inode *inode, uint64_t number, struct sim_page *page);

void sim_change_free(struct sim_change *change);

#endif
