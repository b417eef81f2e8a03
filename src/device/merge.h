/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* merge.h - a merge that is under way: shared by merge.c, which does it, its parts, and merge-start.c, which sets it up. */
#ifndef DEVICE_MERGE_H
#define DEVICE_MERGE_H

#include "device/copy.h"
#include "device/internal.h"
#include "device/refit.h"

#define MERGE_COPIES 8
#define TOP_BATCH_CLUSTERS 2048u /* the largest batch of TOP in clusters of 32 KiB */

enum merge_step {
	MERGE_FIT,    /* `low` becomes as large as what comes into it */
	MERGE_BATCH,  /* between batches */
	MERGE_PAUSED, /* the same, until somebody or the timer says so */
	MERGE_ALONE,  /* TOP: waits until nothing is under way in the batch */
	MERGE_COPY,   /* copies are under way */
	MERGE_SETTLE, /* `low` is being committed */
	MERGE_CLEAR,  /* TOP: the top is being committed */
	MERGE_FORGET, /* TOP: waits for the last reads of the top's old clusters */
	MERGE_DRAIN,  /* the gate is closed; waits for the requests under way */
	MERGE_LAST,   /* `low` is committed for the last time */
	MERGE_LAST_TOP,
	MERGE_TURN, /* nothing is under way at all */
	MERGE_QUIT, /* failed or stopped */
	MERGE_OVER,
};

struct merge_copy {
	struct copy copy;
	struct device_merge *merge;
	uint32_t v, count; /* virtual clusters */
	bool busy;
	bool fresh; /* the place was chosen for this copy */
};

struct device_merge {
	struct device *device;
	struct device_job job;
	unsigned low, high;
	bool top; /* the kind */
	enum merge_step step;
	struct writer *target; /* = device->under */
	struct refit refit;
	bool fits;             /* there is such a step */
	struct map sources;    /* LOWER: the topmost entries of the sources */
	uint32_t next, end;    /* the batch: `next` is what to copy next, `end` one past its last */
	struct device_lock lock;
	uint64_t batch, locked_at; /* TOP: bytes of a batch; when the present one was locked, ns */
	uint32_t gone[TOP_BATCH_CLUSTERS]; /* TOP: the top's clusters whose entries are cleared */
	unsigned ngone;
	struct merge_copy copies[MERGE_COPIES];
	unsigned busy;
	bool copied; /* something, in this batch */
	bool committed; /* the last commit went well */
	void *buffers;
	struct device_commit_waiter waiter;
	struct loop_timer timer;
	struct loop_task task;
	uint64_t total, moved, rate, started;
	struct io_file *old_file; /* of `low`: reads that began before the merge may still use it */
	bool paused, stopped, locked;
	int result;
	void (*done)(void *data, int result);
	void *data;
};

/* Makes a merge ready to run: its loop callbacks and copies. Needs merge->device and merge->buffers. */
void merge_init(struct device_merge *merge);
void merge_free(struct device_merge *merge);

/* merge-size.c: what `low` needs to be as large as what is merged into it; nothing has changed yet. */
int merge_plan_fit(struct device_merge *merge, struct ploop_error *err);
/* The target is open: a raw one is large enough now, another one by merge->refit. */
int merge_fit(struct device_merge *merge, struct ploop_error *err);
/* That is over. */
void merge_fitted(struct device_merge *merge, int result);
/* All copies of the batch are done. */
void merge_settle(struct device_merge *merge);

/* merge-copy.c: makes the copies ready to be used. And: starts copies until all are busy or the batch is through. */
void merge_copy_init(struct device_merge *merge);
void merge_copy(struct device_merge *merge);
/* Where the data of v comes from; NULL when there is none to copy. */
const struct delta *merge_source(const struct device_merge *merge, uint32_t v, uint32_t *ret_cluster);

/* merge-turn.c: what `low` maps v to. */
uint32_t merge_entry(const struct device_merge *merge, uint32_t v);
/* Turns the merged map for v to `low`. What lies under `low` is not known, unless it is the base. */
void merge_turn_map(struct device_merge *merge, uint32_t v);
/* TOP: a raw delta maps everything, also what its holes let look unmapped: below the border nothing may be without an entry. */
void merge_map_raw(struct device_merge *merge);
/* LOWER is copied and committed, and nothing is under way: turns the map. */
void merge_turn_lower(struct device_merge *merge);
/* TOP is over and nothing is under way: `low` is the top. Returns the old top's writer. */
struct writer *merge_turn_top(struct device_merge *merge);

#endif
