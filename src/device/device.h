/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * device.h - the engine: a stack of deltas served as one block device.
 *
 * A device lives on one loop and is called from that loop only. Given the order of I/O completions its behaviour is a pure
 * function: tests run it on io/sim.
 *
 * What it promises:
 *  1. A request whose `done` got 0 is seen by every later request.
 *  2. After a DEVICE_FLUSH (or a write with DEVICE_FUA) all requests that were done before it was submitted survive any
 *     crash. What was not flushed is, after a crash, old or new in each 512-byte sector, never anything else.
 *  3. A file cluster that no index entry points to is never visible, and one never holds the data of two virtual clusters.
 *  4. A read-only device writes no byte to any file.
 */
#ifndef DEVICE_DEVICE_H
#define DEVICE_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "format/format.h"
#include "io/io.h"

struct device;
struct loop;
struct shadow;
struct writer;

#define DEVICE_MAX_LEVELS 127

enum device_kind {
	DEVICE_READ,
	DEVICE_WRITE,
	DEVICE_DISCARD,      /* the range reads as zeros afterwards and its space goes back */
	DEVICE_WRITE_ZEROES, /* the range reads as zeros afterwards */
	DEVICE_FLUSH,
};

enum device_flags {
	DEVICE_FUA = 1, /* durable when done; with any kind that changes data */
};

#define DEVICE_REQUEST_PIECES 4

/* One run of a request that needs nothing but I/O: contiguous in one file. */
struct device_piece {
	struct io_op op;
	struct device_request *request;
	uint64_t start, end; /* bytes of the device */
	bool busy;
};

/* Exclusive use of virtual clusters first..last. Others that want one of them wait here and start over. */
struct device_lock {
	struct list node;
	struct list waiters;
	uint32_t first, last;
	bool reads; /* reads wait too */
};

/* The part of a request that changes the map: at most one at a time. */
struct device_change {
	bool busy;
	bool blank; /* the place reads as zeros already */
	unsigned step;
	struct device_lock lock;
	struct writer *writer; /* of the delta that maps the clusters, or will */
	uint32_t first;        /* virtual cluster */
	uint32_t count;        /* clusters */
	uint32_t cluster;      /* file cluster */
	uint64_t start, end;   /* bytes of the device that the request covers */
	struct partial *partial; /* the cluster is partial, or will be; or NULL */
	uint64_t copy, copy_end; /* copy-on-write: bytes of the cluster that are copied or overwritten */
	uint64_t chunk;        /* copy-on-write: byte inside the cluster that is copied next */
	uint64_t chunk_end;
	void *buffer;
	struct io_op op;
};

/* Somebody who wants to know when all that was written before is durable. */
struct device_commit_waiter {
	struct list node;
	void (*done)(struct device_commit_waiter *waiter, int result);
};

/*
 * One request of a front end. Embedded in the front end's own struct, handed to device_submit(), and the front end's again
 * when `done` is called. `done` may be called from inside device_submit() when the answer needs no I/O, such as a read of
 * what was never written. `offset` and `length` are multiples of 512 and inside the device; the front end checks that.
 */
struct device_request {
	enum device_kind kind;
	unsigned flags;
	uint64_t offset;                                          /* bytes */
	uint64_t length;                                          /* bytes; 0 with DEVICE_FLUSH */
	void *buffer;                                             /* DEVICE_READ, DEVICE_WRITE: contiguous */
	void (*done)(struct device_request *request, int result); /* 0 or a negative errno; first error wins */

	/* The engine's from submit to done. */
	struct device *device;
	struct list node; /* in the list of active requests */
	struct list wait; /* in the one list it waits in */
	uint64_t cursor;  /* byte of the device up to which the request has been started */
	unsigned pending; /* pieces and changes in flight */
	int result;
	bool running; /* inside request_continue() */
	bool waiting;
	bool committing;                    /* the data is written; FUA and flush wait for commits */
	unsigned commits;                   /* writers that are still to commit for it */
	struct device_commit_waiter waiter; /* in the commit of one writer */
	struct device_piece pieces[DEVICE_REQUEST_PIECES];
	struct device_change change;
};

enum device_on_full {
	DEVICE_FULL_STOP,  /* a write that finds no space on the host waits and is tried again (default) */
	DEVICE_FULL_ERROR, /* it fails with -ENOSPC */
};

enum device_event {
	DEVICE_EVENT_FULL,    /* the host is out of space: requests wait */
	DEVICE_EVENT_RESUMED, /* they go on */
	DEVICE_EVENT_ABORTED, /* the index could not be written: all further writes fail with -EIO */
};

struct device_config {
	struct loop *loop;
	const struct delta *levels; /* base first; copied. The files stay the caller's and open until
	                                    * device_close() is done */
	unsigned nlevels;           /* 1..DEVICE_MAX_LEVELS */
	bool read_only;
	enum device_on_full on_full;
	unsigned partial_limit; /* clusters that may be written in part over a lower level at a time; 0: the engine's own */
	struct shadow *shadow; /* remembers what is answered, should this process die (shadow.h); or NULL */
	uint64_t retry_ns;                                  /* DEVICE_FULL_STOP: time between tries; 0 means 1 s */
	void (*event)(void *data, enum device_event event); /* may be NULL */
	void *event_data;
};

/*
 * Opens a device: loads every index into the merged map, checks it, finds the free clusters of the top and, unless
 * read-only, durably marks the top as in use. May block. A top that was left in use by a crash is recovered here: that
 * needs nothing but the scan. Refuses (-EUCLEAN, status 11) an index that points outside its file or twice to one cluster.
 */
int device_open(const struct device_config *config, struct device **ret, struct ploop_error *err);

/* Starts a request. */
void device_submit(struct device *device, struct device_request *request);

/*
 * Waits for all requests, and for a new top that is on its way; makes everything durable, cuts free clusters off the end of the
 * top, marks it clean and frees the device; then calls done(data, result). A device that aborted leaves its top marked in
 * use. Call it once, and submit nothing after it. Files stay open.
 */
void device_close(struct device *device, void (*done)(void *data, int result), void *data);

/*
 * Makes `delta` the new top, which is what a snapshot is: an empty delta of the same size and clusters, open for writing,
 * made durable by the caller together with whatever names it. Requests go on but for a moment in which those under way are
 * finished and flushed. done(data, result) is called when the old top is closed: from then on nobody writes to its file.
 * On failure nothing has changed and the file of `delta` is the caller's to remove. One at a time; -EBUSY otherwise.
 */
int device_push(struct device *device, const struct delta *delta, void (*done)(void *data, int result), void *data,
		struct ploop_error *err);

/* Whether that could begin now, for one who has not made the delta yet: 0, or the reason. */
int device_can_push(const struct device *device, struct ploop_error *err);

/*
 * A small write over a lower level does not copy the whole cluster before it is done: the rest is filled in later, and while
 * that is so, the file of the top alone is not all that others take it for. device_settle() fills everything in and begins
 * nothing new until device_unsettle(); requests go on. `done` gets 0 when the top is an ordinary image whose index says all;
 * or why it cannot be filled, and then nothing is lost. Never calls `done` at once. Also when that failed, each call is undone by one
 * device_unsettle(). device_push(), device_merge() and device_close() do it by themselves.
 */
struct device_settle {
	void (*done)(struct device_settle *settle, int result);
	struct list node; /* the engine's */
};
void device_settle(struct device *device, struct device_settle *settle);
void device_unsettle(struct device *device);

struct device_merge_config {
	/* Levels low + 1 .. high are merged into level low. The top can only be merged into the level just below it: merge those
	 * between first, and let the descriptor forget them. */
	unsigned low, high;
	struct io_file *file;    /* the low level's file, open for writing; takes the place of the one the device has */
	uint64_t bytes_a_second; /* of data moved; 0: as fast as it goes */
	/* The merge is over. 0: the levels low + 1 .. high are gone from the device, which reads and writes as before; nobody uses
	 * their files. -ECANCELED: stopped. Any failure: the device works on, and the stack as it stands in the files is the same
	 * disk; merging again, now or after the next opening, goes on where this one stopped. */
	void (*done)(void *data, int result);
	void *data;
};

/*
 * Merges levels while requests go on: all data of the upper ones comes into the lowest. The files of a stack are the same disk
 * at every moment, however it is cut off; the caller changes whatever names them after `done`, and then may remove the files
 * of the merged levels. May block for a moment at its start. One at a time; -EBUSY otherwise.
 */
int device_merge(struct device *device, const struct device_merge_config *config, struct ploop_error *err);

/* Stops a merge at the next batch; `done` gets -ECANCELED. */
void device_merge_stop(struct device *device);
/* While paused no further batch is begun. */
void device_merge_pause(struct device *device, bool paused);

/* Bytes to be moved, as far as is known, and moved so far. False: no merge. */
bool device_merge_progress(const struct device *device, uint64_t *ret_total, uint64_t *ret_done);

/*
 * Changes the size of the device, and of the top: to a multiple of 512, and of a cluster unless the top is raw. done() is called
 * when that is durable, or failed and changed nothing; the order of writes is in resize.c. May block for a moment. One long
 * work at a time; -EBUSY otherwise.
 * Larger: while requests go on. Those below keep their size: what lies beyond their end reads as zeros. Requests reach beyond the
 * old end when done() was called.
 * Smaller: nobody may use the device, and what is beyond the new end is gone. -EINVAL when a level below the top is larger.
 */
int device_resize(struct device *device, uint64_t size, void (*done)(void *data, int result), void *data,
		  struct ploop_error *err);

struct device_replace_config {
	unsigned level;            /* not the top, unless the device takes no writes */
	const struct delta *delta; /* the new one: open for reading; copied */
	/* Nothing is under way: what names the files may change now. Not 0: nothing is replaced, and `done` gets it. May block for a
	 * moment. May be NULL. */
	int (*turn)(void *data);
	/* 0: nobody uses the old file any more. Else nobody uses the new one. */
	void (*done)(void *data, int result);
	void *data;
};

/*
 * Another file of the same content takes the place of a level's, while requests go on. That the contents are the same is the
 * caller's word; format, size and which clusters are there are checked. May block for a moment at its start. One long work at
 * a time; -EBUSY otherwise.
 */
int device_replace(struct device *device, const struct device_replace_config *config, struct ploop_error *err);

struct device_compact_config {
	unsigned level;          /* whose file becomes shorter */
	struct io_file *file;    /* of a level below the top: open for writing; takes the place of the one the device has */
	uint64_t target;         /* bytes: enough when the file is no longer than this; 0: as short as it goes */
	uint64_t bytes_a_second; /* of data moved; 0: as fast as leaves others most of their speed (base/pace.h) */
	/* It is over. -ECANCELED: stopped. Whatever the result, what was moved is moved, and the file is as short as that allows. */
	void (*done)(void *data, int result);
	void *data;
};

/*
 * Moves clusters from the end of a file into free ones and cuts the file, batch by batch, while requests go on; then gives back
 * the blocks of free clusters that are left inside. One long work at a time; -EBUSY otherwise. -ENOSPC when the host has no room
 * for a copy of a batch.
 */
int device_compact(struct device *device, const struct device_compact_config *config, struct ploop_error *err);

/* As those of a merge; but when there is none, it is told how far the last one came. */
void device_compact_stop(struct device *device);
void device_compact_pause(struct device *device, bool paused);
bool device_compact_progress(const struct device *device, uint64_t *ret_total, uint64_t *ret_done);

/* Tries requests that wait for space at once. */
void device_resume(struct device *device);

uint64_t device_size(const struct device *device);    /* bytes */
/* What the header of a level says now. */
const struct geometry *device_geometry(const struct device *device, unsigned level);
uint32_t device_cluster(const struct device *device); /* bytes */
bool device_read_only(const struct device *device);
bool device_aborted(const struct device *device);
bool device_full(const struct device *device); /* requests wait for space on the host */
unsigned device_levels(const struct device *device);

/* Where virtual cluster v is: the level (0 the base) and its file cluster; 0 as the file cluster when it is nowhere. */
struct device_place {
	unsigned level;
	uint32_t cluster;
};
struct device_place device_lookup(const struct device *device, uint32_t v);

/* Whether a part of virtual cluster v, of which device_lookup() does not know, lies in the top. */
bool device_is_partial(const struct device *device, uint32_t v);

/* Whether a discard of virtual cluster v, all of it, gives a cluster of the top's file back. */
bool device_releasable(const struct device *device, uint32_t v);

/* Clusters of the top's file: in use by the index, free inside the file, and in all. */
struct device_usage {
	uint64_t mapped; /* virtual clusters mapped anywhere */
	uint64_t top_used, top_free;
};
void device_get_usage(const struct device *device, struct device_usage *ret);

/* Counters, by the names of the original where it had one. They only grow, until somebody clears them. */
#define DEVICE_STATS(X)                                                                  \
	X(bio_in)            /* requests */                                              \
	X(bio_out)           /* operations on files */                                   \
	X(bio_fast)          /* of them, those that needed no change of the map */       \
	X(bio_alloc)         /* first writes of a part of a cluster */                   \
	X(bio_alloc_whole)   /* first writes of whole clusters */                        \
	X(bio_cows)          /* clusters copied from a lower level */                    \
	X(bio_partial)       /* writes of a part of a cluster that lies below */         \
	X(bio_fills)         /* clusters that were written so and have been filled */    \
	X(bio_rzero)         /* runs read that are mapped nowhere */                     \
	X(bio_wzero)         /* writes of zeros where zeros are read already: dropped */ \
	X(bio_discard)       /* discards and write zeroes */                             \
	X(bio_flush_in)      /* flushes asked for */                                     \
	X(bio_flush_out)     /* commits made for them */                                 \
	X(bio_flush_skip)    /* flushes with nothing to do */                            \
	X(bio_fua_in)        /* requests with FUA */                                     \
	X(bio_fsync)         /* syncs of the top's file */                               \
	X(bio_lockouts)      /* times a request waited for a lock */                     \
	X(bio_full)          /* times something waited for space on the host */          \
	X(bio_errors)        /* requests that failed */                                  \
	X(map_single_writes) /* index pages written */                                   \
	X(gate_closed)       /* times new requests were held back, for a new top say */  \
	X(gate_ns)           /* nanoseconds of that in all */                            \
	X(read_bytes)                                                                    \
	X(write_bytes)                                                                   \
	X(discard_bytes)

struct device_stats {
#define DEVICE_STATS_FIELD(name) uint64_t name;
	DEVICE_STATS(DEVICE_STATS_FIELD)
#undef DEVICE_STATS_FIELD
};
struct device_stats *device_get_stats(struct device *device);

/* Names of the counters in the order of the struct, NULL-terminated. */
extern const char *const device_stats_names[];

#endif
