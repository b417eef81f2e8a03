/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * world.h - a simulated disk with a stack of images on it, a device that is opened and closed on that again and again, and
 * an oracle that knows what must be there.
 *
 * What a world does is a pure function of its seed. A finding ends the process: the text says how to repeat it.
 */
#ifndef TESTS_SIM_WORLD_H
#define TESTS_SIM_WORLD_H

#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/prng.h"
#include "device/device.h"
#include "disk.h"
#include "io/sim.h"
#include "oracle.h"

#define WORLD_SLOTS 24
#define WORLD_BUFFER (UINT64_C(4) << 20)
#define WORLD_LARGEST (UINT64_C(1) << 29) /* bytes; larger ones take too long to read */

struct world;
struct world_copy;
struct world_bitmaps;

/* One request of the model. */
struct slot {
	struct device_request request;
	struct world *world;
	bool busy;
	uint8_t *buffer; /* WORLD_BUFFER bytes */
	struct oracle_write *write;
	struct oracle_read read;
	uint64_t flush; /* when the flush was submitted */
	bool settling;  /* a read after a cut */
	int result;     /* when it was last done */
};

struct world {
	uint64_t seed;
	struct prng prng;
	struct sim *sim;
	struct disk disk;
	struct oracle oracle;
	struct delta levels[DISK_LEVELS];
	struct device *device; /* NULL: closed */
	bool read_only;
	bool may_fail; /* operations fail by order: requests may fail */
	bool opening;  /* since device_open() was called */
	bool closing;  /* since device_close() was called */
	bool closed;
	int close_result;
	bool pushing; /* a new top is on its way */
	bool preparing; /* the device settles for it */
	struct device_settle settle;
	uint64_t pushes;
	bool merging;
	unsigned merge_low, merge_high;
	struct io_file *merge_file; /* of the low level, for writing */
	uint64_t merges;
	bool resizing;
	struct disk_level before, after; /* of a level, as the last change of its size would have it */
	struct oracle_write *erased;     /* what a smaller size takes away; NULL: nothing */
	uint64_t resizes;
	bool compacting;
	unsigned compact_level;
	struct io_file *compact_file; /* of a level below the top, for writing */
	uint64_t compactions;
	bool replacing;
	unsigned replace_level;
	char replace_path[16]; /* of the other file: the new one, then the old one */
	struct delta replace_delta;
	uint64_t replaced;
	struct prng aside;       /* for what came later, so that older seeds stay what they are */
	struct world_copy *copy; /* that is made; NULL: none */
	uint64_t copies;         /* found good */
	struct world_bitmaps *bitmaps; /* NULL until the first opening */
	uint64_t bitmap_checks, bitmap_clean; /* of bitmaps; of those that called something clean */
	uint64_t completions, partials; /* levels completed after a crash; writes of parts of clusters */
	bool lost;             /* device_close() failed: what was not flushed may be gone, as after a crash */
	struct shadow *shadow; /* what outlives a process */
	int remembered;        /* as it was when the process died; -1: it did not */
	bool replay;           /* the files do not say it yet */
	bool unsettled;        /* something else than a process was lost, and what that left was not read yet */
	uint64_t replays;
	enum sim_cut cut_kind; /* of the next one */
	bool power_cut;        /* the last one was of the power */
	bool parts;            /* mostly small requests, anywhere */
	bool chain;            /* requests are submitted from inside `done` too */
	unsigned depth;        /* slots used */
	unsigned busy;
	struct slot slots[WORLD_SLOTS];
	uint8_t *buffers;                        /* of the slots; kept from world to world */
	uint64_t ops, cuts, failures, events[3]; /* done so far */
	bool verbose;
	char doing[64];
	jmp_buf *caught; /* where a finding goes */
	char finding[1024];
};

/* A world is all zeros before its first time. */
void world_init(struct world *world, uint64_t seed, bool verbose);
void world_fini(struct world *world);

/* A finding: does not return. */
void world_fail(struct world *world, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));

/* world-shadow.c: memory for a new world; of one that is over; after a cut; and: the files are made to say what it knows. */
void world_shadow_init(struct world *world);
void world_shadow_fini(struct world *world);
void world_shadow_recover(struct world *world);
int world_shadow_replay(struct world *world);

/* complete.c: levels below the top that a crash left with partial clusters are made whole. */
int world_complete(struct world *world);

/* Opens the device. 0, or the error: allowed only when operations are made to fail or the power was cut. */
int world_open(struct world *world, bool read_only, enum device_on_full on_full);
/* Closes, which waits for all requests; checks that this succeeded unless it may fail. Then checks the files. */
void world_close(struct world *world);

/* Starts a request on a free slot. The range in sectors. */
struct slot *world_submit(struct world *world, enum device_kind kind, unsigned flags, uint64_t sector, uint64_t count);
/* The same with everything drawn. */
void world_submit_random(struct world *world);
/* Begins to put a new top on the stack, if that can be. */
void world_push(struct world *world);
/* Begins to merge these levels, if that can be. */
void world_merge_levels(struct world *world, unsigned low, unsigned high);
/* Merges some levels, or stops the merge that is under way. */
void world_merge(struct world *world);
/* Recovers from a cut or a close that failed, until all was read and found good. */
void world_settle(struct world *world);
/* world-copy.c: begins a copy, goes on with it, or ends it. And: forgets it; the device is still there. */
void world_copy(struct world *world);
void world_copy_drop(struct world *world);
/* world-replace.c: begins to put another file in the place of one below the top, if that can be. */
void world_replace(struct world *world);
/* world-cbt.c: begins, drops and checks dirty bitmaps, when nothing is in flight. And: checks only. */
void world_bitmaps(struct world *world);
void world_bitmaps_check(struct world *world);
void world_bitmaps_first(struct world *world); /* the device is open, and nothing was written yet */
void world_bitmaps_drop(struct world *world);  /* it is closed */
void world_bitmaps_free(struct world *world);
/* world-size.c: begins to make the disk larger, if that can be. */
void world_grow(struct world *world);
/* Makes it smaller, and waits for that; if nothing is under way. */
void world_shrink(struct world *world);
/* A level below the top has this size now. And: a merge that begins may give it this size at any moment. */
void world_adopt_size(struct world *world, struct disk_level *level, uint64_t size);
void world_may_fit(struct world *world, struct disk_level *level, uint64_t size);
/* Begins or stops a compaction. */
void world_compact(struct world *world);
/* After a cut: finds out which size the disk has. */
void world_settle_size(struct world *world);
/* Is long work under way? And: waits until it is over. */
static inline bool world_works(const struct world *world)
{
	return world->preparing || world->pushing || world->merging || world->resizing || world->compacting ||
	       world->replacing || world->copy;
}
void world_wait_for_work(struct world *world);
/* One turn of the loop. */
void world_turn(struct world *world);
/* Turns until no request is in flight. */
void world_wait(struct world *world);

/* Reads all of the disk. After a cut, this settles what was left. False when the power was cut meanwhile. */
bool world_read_all(struct world *world, bool settling);

/* Takes everything down after a cut, or a close that failed, checks the files and boots again. */
void world_recover(struct world *world);

#endif
