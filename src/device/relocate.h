/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * relocate.h - clusters of a delta's file move to other places in it, while requests go on. The index grows into the room, or
 * the file becomes shorter.
 */
#ifndef DEVICE_RELOCATE_H
#define DEVICE_RELOCATE_H

#include "device/copy.h"
#include "device/internal.h"

#define RELOCATE_SLOTS 16 /* short runs at a time; of long ones fewer */

struct relocate_slot {
	struct copy copy;
	struct relocate *relocate;
	struct device_lock lock;
	unsigned step;
	uint64_t bytes;    /* of the whole run */
	uint32_t v, count; /* virtual clusters of this run that are still to be moved */
	uint32_t now;      /* the first of them, which are being copied */
};

struct relocate {
	/* The caller's. */
	struct writer *writer;
	uint32_t from; /* file clusters from here to `end` shall be free */
	uint32_t end;  /* one past the last */
	uint32_t
		below; /* they move below this one; UINT32_MAX: to wherever there is room, and the file may become longer */
	void (*done)(struct relocate *relocate, int result);

	/* Results. */
	uint64_t moved; /* bytes */
	bool full;      /* nothing is free below `below` */

	/* The engine's. */
	struct device *device;
	uint32_t *owner; /* for each file cluster from `from` on: the virtual cluster + 1 that is there, or 0 */
	uint32_t scan;   /* virtual cluster to look at next */
	uint32_t next;   /* one past the file cluster to be moved next: they go from the last to the first */
	uint64_t left;   /* bytes of this batch */
	uint64_t flying; /* bytes of the runs that are under way */
	unsigned busy;
	bool running, stopped;
	int result;
	struct relocate_slot slots[RELOCATE_SLOTS];
	void *buffers;
	struct loop_task task;
};

/* The caller's fields are set. 0 or -ENOMEM. Nothing may be under way when it is taken down. */
int relocate_init(struct relocate *relocate);
void relocate_fini(struct relocate *relocate);

/* Finds and moves the next `bytes` or so, then calls done(). What it moved is durable, and the old places free, after a commit. */
void relocate_run(struct relocate *relocate, uint64_t bytes);
/* Everything was looked at. Clusters that requests mapped there meanwhile may be left. */
bool relocate_over(const struct relocate *relocate);
/* Begins nothing more; done() gets -ECANCELED. */
void relocate_stop(struct relocate *relocate);
void relocate_poke(struct relocate *relocate);

#endif
