/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pool.c - see pool.h. Finished jobs come back to the loop through an eventfd that it watches; one that still has
 * something to read is not written again.
 */
#include "io/pool.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/error.h"
#include "io/loop.h"

#define POOL_MAX_THREADS 8
#define POOL_STACK (256 * 1024)

struct io_pool {
	struct loop *loop;
	unsigned users;
	int event;
	struct loop_watch watch;
	unsigned nthreads;
	pthread_t threads[POOL_MAX_THREADS];

	/* Shared with the threads; under `lock`. */
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct list todo;
	struct list finished;
	bool quit;
};

static void pool_finish(struct io_pool *pool, struct io_pool_job *job)
{
	uint64_t one = 1;
	bool first;

	pthread_mutex_lock(&pool->lock);
	first = list_empty(&pool->finished);
	list_push_back(&pool->finished, &job->node);
	pthread_mutex_unlock(&pool->lock);
	/* Cannot fail: the counter is far from its end. */
	if (first)
		(void)!write(pool->event, &one, sizeof(one));
}

static struct io_pool_job *pool_next(struct io_pool *pool)
{
	struct list *node;

	pthread_mutex_lock(&pool->lock);
	while (list_empty(&pool->todo) && !pool->quit)
		pthread_cond_wait(&pool->more, &pool->lock);
	node = list_pop(&pool->todo);
	pthread_mutex_unlock(&pool->lock);
	return node ? container_of(node, struct io_pool_job, node) : NULL;
}

static void *pool_thread(void *data)
{
	struct io_pool *pool = data;
	struct io_pool_job *job;

	while ((job = pool_next(pool))) {
		job->work(job);
		pool_finish(pool, job);
	}
	return NULL;
}

static void pool_ready(struct loop_watch *watch, int revents)
{
	struct io_pool *pool = container_of(watch, struct io_pool, watch);
	struct list finished, *node;
	uint64_t count;

	(void)revents;
	(void)!read(pool->event, &count, sizeof(count));
	list_init(&finished);
	pthread_mutex_lock(&pool->lock);
	list_move_all(&finished, &pool->finished);
	pthread_mutex_unlock(&pool->lock);
	/* Before the jobs, of which one may put the pool. The slot that fired is free again, so this cannot fail. */
	(void)loop_watch_add(pool->loop, &pool->watch);
	while ((node = list_pop(&finished))) {
		struct io_pool_job *job = container_of(node, struct io_pool_job, node);

		job->finished(job);
	}
}

void io_pool_submit(struct io_pool *pool, struct io_pool_job *job)
{
	pthread_mutex_lock(&pool->lock);
	list_push_back(&pool->todo, &job->node);
	pthread_mutex_unlock(&pool->lock);
	pthread_cond_signal(&pool->more);
}

/* Signals are for the program's own threads: a worker takes none. */
static int pool_spawn(struct io_pool *pool)
{
	pthread_attr_t attr;
	sigset_t all, old;
	int r;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, POOL_STACK);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = -pthread_create(&pool->threads[pool->nthreads], &attr, pool_thread, pool);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (!r)
		pool->nthreads++;
	return r;
}

void io_pool_free(struct io_pool *pool)
{
	if (!pool)
		return;
	pthread_mutex_lock(&pool->lock);
	pool->quit = true;
	pthread_mutex_unlock(&pool->lock);
	pthread_cond_broadcast(&pool->more);
	for (unsigned i = 0; i < pool->nthreads; i++)
		pthread_join(pool->threads[i], NULL);
	loop_watch_remove(pool->loop, &pool->watch);
	pthread_mutex_destroy(&pool->lock);
	pthread_cond_destroy(&pool->more);
	close(pool->event);
	free(pool);
}

static int pool_make(struct loop *loop, struct io_pool **ret)
{
	struct io_pool *pool = calloc(1, sizeof(*pool));
	int r;

	if (!pool)
		return -ENOMEM;
	*pool = (struct io_pool){ .loop = loop, .event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };
	if (pool->event < 0) {
		r = -errno;
		free(pool);
		return r;
	}
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->more, NULL);
	list_init(&pool->todo);
	list_init(&pool->finished);
	pool->watch = (struct loop_watch){ .fd = pool->event, .events = POLLIN, .ready = pool_ready };
	r = loop_watch_add(loop, &pool->watch);
	if (r) {
		io_pool_free(pool);
		return r;
	}
	*ret = pool;
	return 0;
}

/* Tells only of having none at all: fewer than wished do the work too. */
static int pool_grow(struct io_pool *pool, unsigned threads)
{
	int r = 0;

	while (!r && pool->nthreads < threads && pool->nthreads < POOL_MAX_THREADS)
		r = pool_spawn(pool);
	return pool->nthreads ? 0 : r;
}

int io_pool_new(struct loop *loop, unsigned threads, struct io_pool **ret, struct ploop_error *err)
{
	struct io_pool *pool = NULL;
	int r = pool_make(loop, &pool);

	if (!r)
		r = pool_grow(pool, threads);
	if (r) {
		io_pool_free(pool);
		return error_sys(err, r, PLOOP_EXIT_SYS, "cannot make threads for calls that block");
	}
	*ret = pool;
	return 0;
}

int io_pool_get(struct loop *loop, unsigned threads, struct io_pool **ret, struct ploop_error *err)
{
	int r = loop->pool ? pool_grow(loop->pool, threads) : io_pool_new(loop, threads, &loop->pool, err);

	if (r)
		return r;
	loop->pool->users++;
	*ret = loop->pool;
	return 0;
}

void io_pool_put(struct io_pool *pool)
{
	if (!pool || --pool->users)
		return;
	pool->loop->pool = NULL;
	io_pool_free(pool);
}
