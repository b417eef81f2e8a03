/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sim-disk.h - the platter of the simulated disk: files, what of them is synced, and what a power cut leaves.
 *
 * A file is its present contents plus a log of the changes that are not synced, in the order in which they took effect. Each
 * change keeps the pages that were there before and those that it put there. So:
 *  1. Reads see all changes.
 *  2. Undoing the log backwards gives the synced contents; a cut does that, then redoes a random part forwards.
 *  3. A sync forgets changes. One that must stay while a later one is forgotten never shares a page with it: else its
 *     undoing would take the later one back. Where they share one, both are made durable, which the disk is free to do.
 */
#ifndef IO_SIM_DISK_H
#define IO_SIM_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/prng.h"
#include "io/sim-table.h"

#define SIM_SECTOR 512u

struct sim_disk {
	struct list inodes;
	uint64_t space; /* pages that may be used */
	uint64_t used;
};

struct sim_inode {
	struct list node;
	struct sim_disk *disk;
	char *path;
	unsigned opens;
	struct sim_table pages; /* nothing at or beyond `size` */
	uint64_t size;
	uint64_t durable_size;
	uint64_t durable_change; /* the change that the durable length is of */
	struct list log;  /* of sim_change */
	uint64_t changes; /* ever made */
};

/* What one change did to one page. */
struct sim_patch {
	uint64_t number;
	struct sim_page *before, *after; /* NULL: absent */
	uint8_t sectors;                 /* those it touched */
};

struct sim_change {
	struct list node;
	uint64_t start, end; /* bytes of the file that it touches */
	uint64_t number; /* counts the changes of the file */
	uint64_t size_before, size_after;
	uint64_t told;   /* when the caller learnt that it is done; UINT64_MAX: not yet */
	uint64_t *owner; /* a word that holds this pointer and is cleared when the change is freed, or NULL */
	unsigned npatches, capacity;
	struct sim_patch *patches;
};

void sim_disk_init(struct sim_disk *disk);
void sim_disk_fini(struct sim_disk *disk);

struct sim_inode *sim_inode_find(const struct sim_disk *disk, const char *path);
struct sim_inode *sim_inode_new(struct sim_disk *disk, const char *path);
void sim_inode_free(struct sim_inode *inode);

/* Zeros beyond the end. */
void sim_inode_read(const struct sim_inode *inode, uint64_t offset, uint64_t length, void *buffer);

/*
 * Each makes one change, which it logs and gives in *ret. -ENOSPC when the disk is full: then the change is a part of what was
 * asked for. Lengths of 0 change nothing but still log.
 */
int sim_inode_write(struct sim_inode *inode, uint64_t offset, uint64_t length, const void *buffer,
		    struct sim_change **ret);
int sim_inode_zero(struct sim_inode *inode, uint64_t offset, uint64_t length, struct sim_change **ret);
int sim_inode_punch(struct sim_inode *inode, uint64_t offset, uint64_t length, struct sim_change **ret);
int sim_inode_truncate(struct sim_inode *inode, uint64_t size, struct sim_change **ret);
/* Offsets and length in whole pages, except that the source may end inside one. */
int sim_inode_clone(struct sim_inode *inode, uint64_t offset, uint64_t length, const struct sim_inode *source,
		    uint64_t source_offset, struct sim_change **ret);

/* Makes all changes durable that were told before `when`. */
void sim_inode_sync(struct sim_inode *inode, uint64_t when);

/* Every file becomes something that a power cut at this moment may leave, and that is then durable. */
void sim_disk_cut(struct sim_disk *disk, struct prng *prng);

#endif
