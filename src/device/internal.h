/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * internal.h - what the files of the engine share.
 *
 *	request.c  the life of a request; reads, and writes to what is mapped
 *	write.c    changes that map something: first writes, copy-on-write, holes that mask lower data
 *	erase.c    changes that unmap something, and punching in place
 *	commit.c   flush: how the index reaches the disk
 *	lock.c     exclusive use of clusters
 *	stall.c    waiting for space on the host
 *	partial.h  clusters that are written in part over a lower level: partial.c, partial-fill.c, partial-table.c
 *	job.c      long work, one at a time
 *	push.c     a new top: snapshots
 *	merge.c    levels merged into a lower one; merge-start.c is how that begins, merge-copy.c copies the data, merge-turn.c
 *	           turns the map
 *	copy.c     clusters from one delta to another
 *	relocate.c clusters to other places in their file
 *	refit.c    the index and header of a delta for another size
 *	resize.c   another size of the device
 *	compact.c  a shorter file
 *	replace.c  another file of the same content
 *	tracker.c  what has changed; track.c: for a copy, at whose end the device stands still; cbt.h: since a backup, cbt.c and
 *	           cbt-store.c
 *	load.c     reading the indexes at open
 *	map.c      the merged map; alloc.c: the free clusters of a delta
 *	writer.c   the in-use mark, and all that belongs to the delta that is written to
 *	device.c   open and close
 */
#ifndef DEVICE_INTERNAL_H
#define DEVICE_INTERNAL_H

#include "base/list.h"
#include "device/cbt.h"
#include "device/device.h"
#include "device/map.h"
#include "device/partial.h"
#include "device/shadow.h"
#include "device/writer.h"
#include "io/loop.h"

#define DEVICE_BUFFERS 8

/* Long work on a device, embedded in what does it. There is one at a time. */
struct device_job {
	const char *name; /* "a merge" */
	/* All of the top stands in its index: device_settle() is over, with this result. NULL: there is no need for that. */
	void (*begin)(struct device_job *job, int result);
	/* Something ended that it may wait for: a piece, a lock, or the last request under way. Required. */
	void (*poke)(struct device_job *job);
	/* The device closes; it ends as soon as it can, and then calls job_end(). May be NULL: it ends soon by itself. */
	void (*stop)(struct device_job *job);
	bool calm; /* the top stays the top, and its format extension may become another one meanwhile */
	struct device_settle settle; /* job.c's */
};

struct device {
	struct loop *loop;
	struct delta levels[DEVICE_MAX_LEVELS];
	unsigned nlevels;
	struct delta *top;
	bool read_only, aborted;
	uint64_t size;
	uint32_t cluster;

	struct map map;
	struct writer *writer; /* of the top */
	struct writer *under; /* a merge of the top writes to this delta, and so do requests below under_end; or NULL */
	uint32_t under_end;   /* virtual cluster */

	struct partials *partials;
	unsigned partial_limit;
	struct shadow *shadow; /* or NULL */
	struct device_job *job;     /* long work that is under way */
	bool job_holds;             /* it has let the device settle */
	struct device_merge *merge; /* the same, when it is a merge */
	struct device_compact *compact;
	uint64_t compact_total, compact_moved; /* of the last one */
	struct list gate;           /* requests that wait until it opens */
	bool gated;
	uint64_t gated_at; /* ns on the loop's clock */
	struct list trackers;
	struct cbt cbt;

	struct list active; /* requests from submit to done */
	struct list locks;
	struct list drainers; /* changes that hold a lock and wait for pieces in flight on its range */
	struct list buffer_waiters;
	void *buffers[DEVICE_BUFFERS]; /* free ones, for copy-on-write */
	unsigned free_buffers;
	uint32_t buffer_size;
	void *buffer_memory;

	enum device_on_full on_full;
	uint64_t retry_ns;
	struct list stalled_ops;      /* operations that got ENOSPC */
	struct list stalled_requests; /* requests that could not make the file longer */
	struct loop_timer retry_timer;
	bool full;

	void (*event)(void *data, enum device_event event);
	void *event_data;
	struct device_stats stats;

	void (*close_done)(void *data, int result);
	void *close_data;
	struct loop_task close_task;
	struct device_request close_flush;
	struct io_op close_punch;
	struct device_settle close_settle;
	bool closing, close_settling, close_settled, close_flushed;
	int close_result;
};

static inline unsigned device_top_level(const struct device *dev)
{
	return dev->nlevels - 1;
}

/* Whether clusters of `from` can be cloned into `to`, as far as is known. */
static inline bool delta_can_clone(const struct delta *to, const struct delta *from)
{
	uint32_t block = to->file->block;

	return to->file->can_clone && from->file->ops == to->file->ops && to->geometry.cluster % block == 0 &&
	       to->geometry.base % block == 0 && from->geometry.base % block == 0;
}

/* Who writes to virtual cluster v. */
static inline struct writer *device_writer(const struct device *dev, uint32_t v)
{
	return v < dev->under_end ? dev->under : dev->writer;
}

/* Whether its writer can give cluster v back by removing the entry: a format with an index, and nothing below. */
static inline bool device_can_unmap(const struct device *dev, uint32_t v)
{
	return device_writer(dev, v)->delta->format->has_index && !bitmap_test(&dev->map.below, v);
}

/* One past the last byte of virtual cluster v. */
static inline uint64_t device_cluster_end(const struct device *dev, uint32_t v)
{
	uint64_t end = ((uint64_t)v + 1) * dev->cluster;

	return end < dev->size ? end : dev->size;
}

/* Byte in the file of `level` where device byte `pos` is, when its cluster is file cluster k. */
static inline uint64_t device_file_offset(const struct device *dev, unsigned level, uint32_t k, uint64_t pos)
{
	return geometry_offset(&dev->levels[level].geometry, k) + pos % dev->cluster;
}

void device_event(struct device *dev, enum device_event event);
void device_abort(struct device *dev);
/* device.c: a request is over; goes on with closing when it was the last. */
void device_check_close(struct device *dev);

/* request.c: a file of a writer has changed. */
void device_written(struct device *dev);

/* Counts and starts an operation. */
void device_io(struct device *dev, struct io_op *op);

/* request.c: starts a request that has not passed the gate, for the engine's own use. */
void request_submit(struct device *dev, struct device_request *request);
/* While the gate is closed no new request is started. */
void gate_close(struct device *dev);
void gate_open(struct device *dev);

/* job.c: whether long work may begin; -EBUSY and what is under way. `what` is what would be done: "nothing can be merged". */
int job_check(const struct device *dev, const char *what, struct ploop_error *err);
/* Nobody else may begin from now on; job->begin() is called when the device has settled, which stays so until job_end(). */
void job_begin(struct device *dev, struct device_job *job);
/* It is over, and freed already: tells whoever asked for it, and goes on with closing. */
void job_end(struct device *dev, void (*done)(void *data, int result), void *data, int result);
void job_poke(struct device *dev);

/* tracker.c: the bytes from `start` to `end` are others now, or lie elsewhere. */
void device_note(struct device *dev, uint64_t start, uint64_t end);

/* request.c: starts or goes on with a request until it has to wait. May finish it. */
void request_continue(struct device_request *request);
/* A piece or change of the request is over. */
void request_progress(struct device_request *request, int result);

/* write.c and erase.c: take the next step from request->cursor on. False: nothing can be started now. */
bool write_change(struct device_request *request);
bool erase_advance(struct device_request *request);
/* A piece is over: changes that wait for pieces in flight on their clusters look again. */
void erase_drained(struct device *dev);

/* Where the run of clusters from the cursor on (in v) that lie together ends. One cluster while there are locks. */
uint64_t request_run_end(const struct device_request *request, uint32_t v);

/* A free piece of the request, or NULL; and: start it. */
struct device_piece *request_piece(struct device_request *request);
void request_start_piece(struct device_request *request, struct device_piece *piece, enum io_kind kind, uint64_t end);
/* The same for a cluster that lies elsewhere than the map says. */
void request_start_piece_at(struct device_request *request, struct device_piece *piece, enum io_kind kind, uint64_t end,
			    struct device_place place);

/* lock.c */
struct device_lock *lock_conflict(const struct device *dev, uint32_t first, uint32_t last, bool reading);
void lock_take(struct device *dev, struct device_lock *lock, uint32_t first, uint32_t last, bool reads);
void lock_release(struct device *dev, struct device_lock *lock);
/* Makes the request wait for the lock; it goes on by itself. */
void lock_wait(struct device_request *request, struct device_lock *lock);
/* Whether nothing is under way on the lock's clusters but its owner's work: it was taken while others held some of them. */
bool lock_alone(const struct device *dev, const struct device_lock *lock);
/* Whether a piece in flight touches the clusters. */
bool lock_in_flight(const struct device *dev, uint32_t first, uint32_t last);

/* Whether a request under way uses the file. */
bool lock_file_in_flight(const struct device *dev, const struct io_file *file);

/* stall.c: true when the operation failed for want of space and will be tried again: its `done` is called once more. */
bool stall_op(struct device *dev, struct io_op *op, int result);
/* The same for a request that could not be started. */
bool stall_request(struct device_request *request, int result);
void stall_retry(struct loop_timer *timer);

/* load.c: the index of one delta into a map; a writer's clusters are claimed. And: those of all levels into the merged map. */
int load_delta(struct device *dev, unsigned level, struct map *map, struct writer *writer, struct ploop_error *err);
int load_levels(struct device *dev, struct ploop_error *err);
/* File clusters that begin before the end of the file; the last one may be cut short. */
uint32_t load_file_clusters(const struct delta *delta, uint64_t file_size);

#endif
