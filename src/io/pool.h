/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pool.h - a few threads of a loop for calls that block. A job is embedded in the caller's memory; its `work` runs on a
 * thread, then its `finished` runs on the loop.
 */
#ifndef IO_POOL_H
#define IO_POOL_H

#include "base/list.h"

struct io_pool;
struct loop;
struct ploop_error;

struct io_pool_job {
	struct list node;
	void (*work)(struct io_pool_job *job);
	void (*finished)(struct io_pool_job *job);
};

/* A pool of one's own. It may be freed when no job is under way. NULL is accepted. */
int io_pool_new(struct loop *loop, unsigned threads, struct io_pool **ret, struct ploop_error *err);
void io_pool_free(struct io_pool *pool);

/* The loop's pool for files, with at least `threads` threads; made when there is none yet. Each get needs a put. */
int io_pool_get(struct loop *loop, unsigned threads, struct io_pool **ret, struct ploop_error *err);
void io_pool_put(struct io_pool *pool);

void io_pool_submit(struct io_pool *pool, struct io_pool_job *job);

#endif
