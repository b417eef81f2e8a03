/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * partial.h - sub-cluster copy-on-write: a small write over a lower level does not copy the whole cluster before it is done.
 *
 * The write gets a cluster of the top's file, writes its own units (format/partial.h) there, and is done. The cluster is
 * *partial* from then on: in memory stands which units it has; the others are read from below. A background job (partial-fill.c)
 * copies or clones the rest when nobody else is busy; then it becomes an ordinary cluster with an entry in the index. What a flush makes
 * durable of it stands in a table in the file (partial-table.c), which a feature of the format extension names while
 * the image is in use, and which is gone before the image is closed, gets a new top, or is merged.
 *
 *	reserve --> LIVE --> DONE --> RETIRING --> free slot
 *	   |         |        |          a commit that started later is over: the entry is durable
 *	   |         |        a commit starts
 *	   |         all units are there: the entry is in the map (memory), its index page dirty
 *	   the first units are written
 *
 * Crash rules. "Entry" is the top's index entry of virtual cluster v, "record" what the table says of v, k the file cluster.
 *  1. While v is partial its entry is 0. On disk there is a record of v, or none yet; without one v is read from below, which is
 *     right as long as nothing of it was flushed.
 *  2. A record is written only after a sync of the data that it calls valid (commit.c: encoded, sync, written, sync), and it is
 *     durable before the flush is answered.
 *  3. A page of the table is replaced as a whole: a crash leaves its old state or its new one (two copies, checksums).
 *  4. An entry counts more than a record: a record of v means nothing where the entry of v is not 0. So v becomes ordinary by the
 *     entry alone, which is written, like all entries, after a sync of the data of all units.
 *  5. A record leaves the table, be it for another one in its slot, only when the entry of v is durable. Until then it is written
 *     again with its page.
 *  6. An entry of v is not made 0 again as long as the table may hold a record of v: discards do not unmap what lies over
 *     another level, as v does; a merge of the top, which clears entries, and everything that changes what lies below, begins
 *     when the table is gone. So no record comes back to life, and k, which only a cleared entry frees, is not in a record that
 *     counts when somebody else gets it.
 *  7. The table's cluster is durably all zeros before the header names it, and the header stops naming it only when no
 *     record counts any more: all entries are durable. The extension is never changed in place: a new one is written elsewhere,
 *     synced, and then named by the header, which goes to the disk as a part of index page 0.
 *  8. After a crash: the records that count are taken over at open, and claim their clusters. Before anything else is written all
 *     that was read is synced, and records that do not count are taken out of the table. What else such a cluster holds is
 *     unknown: its other units are overwritten whole or punched.
 */
#ifndef DEVICE_PARTIAL_H
#define DEVICE_PARTIAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bitmap.h"
#include "base/list.h"
#include "device/commit.h"
#include "device/device.h"
#include "format/partial.h"
#include "io/loop.h"

#define PARTIAL_BUCKETS 512u
#define PARTIAL_FILLS 4u

struct ploop_error;
struct writer;

enum partial_state {
	PARTIAL_FREE,
	PARTIAL_RESERVED, /* its first units are being written: nobody else knows of it */
	PARTIAL_LIVE,
	PARTIAL_DONE,
	PARTIAL_RETIRING,
	PARTIAL_STATES
};

/* One slot of the table. */
struct partial {
	struct list node;   /* in the list of its state */
	struct list bucket; /* LIVE: by v */
	enum partial_state state;
	uint32_t v, cluster;
	unsigned units, nvalid; /* that it has in all, and that are there */
	uint64_t valid[PARTIAL_UNITS / 64];
	bool blank; /* the units that are not there read as zeros in the file */
	bool filling;
};

/* One cluster that is being filled. */
struct partial_fill {
	struct partials *partials;
	struct partial *partial; /* NULL: idle */
	struct device_lock lock;
	struct io_op op;
	uint64_t start, end; /* bytes of the cluster that are copied now */
	void *buffer;
};

enum partial_table_step { TABLE_OFF, TABLE_WRITE, TABLE_BLANK, TABLE_NAME, TABLE_FREE, TABLE_ON };

/* All partial clusters of a device: always those of its top. */
struct partials {
	struct device *device;
	struct writer *writer; /* of the top that has the table; NULL while there is none */

	/* The slots: as many as the table has records. */
	struct partial *slots;
	unsigned nslots;
	struct list lists[PARTIAL_STATES];
	unsigned count[PARTIAL_STATES];
	struct list buckets[PARTIAL_BUCKETS];
	unsigned limit; /* LIVE ones at most */
	uint32_t unit;  /* bytes */

	/* The table in the file. */
	enum partial_table_step step;
	bool turning_on; /* which way, while it is neither OFF nor ON */
	bool staying;    /* it neither comes nor goes: the extension becomes another one */
	bool replant;    /* that is to be done: the dirty bitmaps are others */
	struct list planting;
	struct partial_table table;
	struct bitmap dirty;     /* pages whose records changed */
	uint64_t sweep;          /* the page that the commit looks at next */
	struct bitmap newer;     /* pages of which copy 1 is the newer one */
	uint64_t *sequences;     /* of the newer copies */
	uint32_t extension;      /* file clusters: of the extension that is being written, 0 none; and of the table */
	uint32_t table_cluster;
	uint32_t useless[2];     /* file clusters that are not named any more; 0 none */
	struct geometry next;    /* the top's, with what becomes of other features */
	void *buffer;            /* of the extension's cluster */
	struct io_op op;
	struct device_commit_waiter named;
	struct list waiting; /* requests that wait for it */
	uint64_t again_at; /* ns on the loop's clock: not to be tried before */

	/* partial-fill.c */
	struct partial_fill fills[PARTIAL_FILLS];
	unsigned filling;
	struct loop_timer timer;
	struct loop_task task;
	uint64_t seen; /* requests when the timer expired last */
	bool idle;     /* none came since */
	unsigned alms; /* clusters that may be filled before the next tick although requests come */
	int error;     /* of the last fill that failed */

	unsigned holds; /* somebody settles or has: no new ones are begun, once there are few */
	bool few_yet;   /* ... which is not so yet */
	unsigned round, round_filled; /* until then: live when the round began, and filled since */
	struct list settling;
	struct device_commit_waiter settled;
	bool committing; /* for those who settle */
};

/* The table is coming or going. */
static inline bool partials_turning(const struct partials *partials)
{
	return partials->step != TABLE_OFF && partials->step != TABLE_ON;
}

/* partial.c: memory for a device that is opened. */
int partials_new(struct device *device, struct partials **ret);
void partials_free(struct partials *partials); /* NULL is accepted */

/* How many may be live at a time. */
unsigned partials_live_limit(const struct device *device);
/* Makes room for the records of a table of so many pages. */
int partials_allot(struct partials *partials, uint32_t pages);

/* The partial cluster v, or NULL. */
struct partial *partial_find(const struct partials *partials, uint32_t v);

/* Whether v, which a lower level maps, may become partial now. */
bool partials_may_begin(const struct partials *partials, uint32_t v);
/* The same for a request that would copy the cluster else: gets the table, and makes the request wait for it. True: it waits. */
bool partials_wait(struct partials *partials, struct device_request *request, uint32_t v);

/* Cluster k is to become partial cluster v. Then either partial_publish() or partial_cancel(). */
struct partial *partial_reserve(struct partials *partials, uint32_t v, uint32_t k);
void partial_cancel(struct partials *partials, struct partial *partial);
/* A slot for a record as it was found at open. NULL: no memory. */
struct partial *partial_restore(struct partials *partials, unsigned slot, const struct partial_record *record, uint32_t k);

/* Bytes from..to of the cluster are there. When that makes it whole it becomes an ordinary one. */
void partial_publish(struct partials *partials, struct partial *partial, uint64_t from, uint64_t to);

/* It is whole: an ordinary cluster from now on. */
void partial_complete(struct partials *partials, struct partial *partial);

/* Whether all units that bytes from..to of the cluster touch are there. */
bool partial_has(const struct partials *partials, const struct partial *partial, uint64_t from, uint64_t to);
/* Whether none of them is. */
bool partial_lacks(const struct partials *partials, const struct partial *partial, uint64_t from, uint64_t to);
/* Whether the unit at byte `at` is there (*ret_there), and where the run of such units ends. */
uint64_t partial_run(const struct partials *partials, const struct partial *partial, uint64_t at, bool *ret_there);
/* A write to it failed: what it lacks may hold anything. */
void partial_soil(struct partials *partials, struct partial *partial);
/* What a write of the bytes from..to must write: units that are not there only as a whole. */
void partial_widen(const struct partials *partials, const struct partial *partial, uint64_t *from, uint64_t *to);

/* A slot goes from one state to another. */
void partial_set_state(struct partials *partials, struct partial *partial, enum partial_state state);
/* The slot's page must be written. */
void partial_touch(struct partials *partials, const struct partial *partial);

/* For commit.c, about the table of one writer. Pages whose records changed; the next of them, encoded, with its place in the
 * file (false: there is none); a commit starts; and is done. */
bool partials_dirty(const struct writer *writer);
bool partials_encode(const struct writer *writer, void *page, uint64_t *ret_offset);
void partials_commit_start(const struct writer *writer);
void partials_commit_done(const struct writer *writer);

/* partial-table.c: the table comes, or goes. Going: nothing is live any more, and all entries are durable. partials_poke() is
 * called when that is over. */
void partials_turn(struct partials *partials, bool on);
/* The table stays as it is, and the extension becomes that of the dirty bitmaps that there are now (cbt.h), if that can be. */
void partials_replant(struct partials *partials);
/* It cannot: tells those who wait. */
void partials_refuse_plants(struct partials *partials, int result);
/* 1: the file of the delta has a table; where, and how long the file is. 0: none. An extension that is damaged is an affair of those
 * who would write. */
int partials_find_table(const struct delta *delta, struct partial_table *ret, uint64_t *ret_size,
			struct ploop_error *err);
/* At open, after the indexes were read: takes over what the table of this level says, if it has one. Blocks. */
int partials_load(struct device *device, unsigned level, struct ploop_error *err);
/* Rule 8: brings the table of an image that was opened up to date. The file is synced. Blocks. */
int partials_scrub(struct partials *partials);

/* partial-fill.c: something changed that fills, or those who settle, may wait for. */
void partials_poke(struct partials *partials);
void partials_init_fills(struct partials *partials);
void partials_fini_fills(struct partials *partials);
/* Nothing is under way. */
bool partials_quiet(const struct partials *partials);

#endif
