/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* commit.h - the group commit: one flush for all who ask for one at the same time. The order of writes is in commit.c. */
#ifndef DEVICE_COMMIT_H
#define DEVICE_COMMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bitmap.h"
#include "base/list.h"
#include "io/io.h"
#include "io/loop.h"

#define COMMIT_PAGES 256 /* index pages written between two syncs */
#define COMMIT_HEAD 64   /* the longest header in front of an index */

struct device;
struct device_commit_waiter;
struct writer;

struct commit_page {
	struct io_op op;
	struct commit *commit;
};

struct commit {
	struct writer *writer;
	struct device *device;
	unsigned state;
	struct bitmap dirty;     /* index pages whose entries changed in the map since they were last written */
	struct list waiting;     /* those that came while a commit was under way */
	struct list committing;  /* those this commit is for */
	struct loop_timer timer; /* bounds how long an index page stays dirty without a flush */
	uint64_t written, synced, syncing; /* counts of finished changes to the top's file */
	uint64_t sweep;                    /* next index page to look at */
	unsigned pages;                    /* in flight */
	int result;
	bool wanted;               /* a commit without a request */
	uint8_t head[COMMIT_HEAD]; /* the header, as it stands on disk */
	void *buffer;
	struct io_op sync;
	struct commit_page page[COMMIT_PAGES];
};

int commit_init(struct commit *commit, struct writer *writer);
void commit_fini(struct commit *commit);

/* The map entry of virtual cluster v has changed: it says already what it shall. */
void commit_dirty(struct commit *commit, uint32_t v);

/* Something else than an entry is to be written by the next commit, which comes in a while. */
void commit_touch(struct commit *commit);

/* Calls waiter->done when everything finished before now is durable. May do so at once. */
void commit_wait(struct commit *commit, struct device_commit_waiter *waiter);

/* Starts a commit that nobody waits for, unless one is under way. */
void commit_kick(struct commit *commit);

/* A commit is under way, or something has changed since the last. */
bool commit_busy(const struct commit *commit);

#endif
