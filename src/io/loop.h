/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * loop.h - the event loop of one device: one thread on which everything happens, and no locks.
 *
 * A loop waits for I/O completions, descriptors and timers, and runs deferred tasks. There are three kinds, one table
 * each: `uring` (one io_uring for all of it), `poll` (where io_uring is forbidden), and `sim` (the simulated disk: its
 * time is virtual and its order is a seed). Nothing that runs on a loop may block.
 *
 * All structs that a caller hands in are embedded in the caller's own and belong to the caller; nothing here allocates
 * memory after loop_new().
 */
#ifndef IO_LOOP_H
#define IO_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"

struct loop;
struct io_pool;
struct io_uring;
struct ploop_error;

/* A descriptor that is watched, one shot: after `ready` ran it must be watched again. */
struct loop_watch {
	int fd;
	short events; /* POLLIN, POLLOUT */
	void (*ready)(struct loop_watch *watch, int revents); /* revents, or a negative errno */
	struct list node;
	bool armed;
};

/* A call at a later time. */
struct loop_timer {
	void (*expired)(struct loop_timer *timer);
	struct list node;
	uint64_t due; /* nanoseconds on the loop's clock */
	bool armed;
};

/* A call in the next turn of the loop, before it waits. */
struct loop_task {
	void (*run)(struct loop_task *task);
	struct list node;
	bool queued;
};

struct loop_ops {
	const char *name;
	/* Submits what is queued and waits at most `timeout` ns (0: do not wait, UINT64_MAX: for ever) for at least one
	 * event, then handles all that are there. Returns 0 or a negative errno. Required. */
	int (*wait)(struct loop *loop, uint64_t timeout);
	/* Required for kinds that can watch descriptors; NULL in sim. */
	int (*watch)(struct loop *loop, struct loop_watch *watch);
	void (*unwatch)(struct loop *loop, struct loop_watch *watch);
	/* The loop's clock in nanoseconds. Required. */
	uint64_t (*now)(struct loop *loop);
	void (*free)(struct loop *loop);
	/* Optional: see loop_hold(). */
	int (*hold)(struct loop *loop, int fd);
};

/* The part all kinds share; a kind embeds it first in its own struct. */
struct loop {
	const struct loop_ops *ops;
	struct list tasks;
	struct list timers; /* sorted by due */
	bool stopped;
	struct io_pool *pool; /* threads for what would block, made by the first file that needs them; else NULL */
};

/* Makes a loop for about `depth` operations in flight: uring when the kernel allows it, else poll. `kind` may name one
 * ("uring", "poll"); NULL chooses. */
int loop_new(const char *kind, unsigned depth, struct loop **ret, struct ploop_error *err);
void loop_free(struct loop *loop);

/* Runs until loop_stop(). */
int loop_run(struct loop *loop);
void loop_stop(struct loop *loop);

/* One turn: runs the tasks, then waits at most `timeout` ns and handles what came. */
int loop_turn(struct loop *loop, uint64_t timeout);

/* Runs `task` in the next turn. No effect when it is already queued. */
void loop_defer(struct loop *loop, struct loop_task *task);

void loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t delay_ns);
void loop_timer_cancel(struct loop *loop, struct loop_timer *timer);

int loop_watch_add(struct loop *loop, struct loop_watch *watch);
void loop_watch_remove(struct loop *loop, struct loop_watch *watch);

/*
 * Keeps a copy of the descriptor for as long as anything that was begun by this loop is under way, though the process be gone: of
 * what a process has begun when it is killed, some goes on in the kernel. Who holds the other end of a socket is told by its
 * end. Once a loop. (The table of registered files of a ring is used for it: who wants files there puts them into that.)
 */
int loop_hold(struct loop *loop, int fd);
#define LOOP_FILES 8u /* of that table; the first is what is held */

uint64_t loop_now(struct loop *loop);

/* For kinds to call from their `new`: sets up the shared part. */
void loop_init(struct loop *loop, const struct loop_ops *ops);

/*
 * The ring of a uring loop, or NULL. A module that puts its own entries on it sets the entry's user data to a
 * struct loop_completion, whose `done` gets the result.
 */
struct io_uring *loop_ring(struct loop *loop);

struct loop_completion {
	void (*done)(struct loop_completion *completion, int result, unsigned flags);
};

#endif
