/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * loop.c - the part that all kinds of loop share: tasks, timers, and the turn.
 *
 * A turn is: the tasks that were queued when it began, then wait, then the timers that are due. A task that is queued
 * while the turn runs waits for the next one, which then does not sleep.
 */
#include "io/loop.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "io/loop-kinds.h"

void loop_init(struct loop *loop, const struct loop_ops *ops)
{
	*loop = (struct loop){ .ops = ops };
	list_init(&loop->tasks);
	list_init(&loop->timers);
}

int loop_new(const char *kind, unsigned depth, struct loop **ret, struct ploop_error *err)
{
	int r;

	if (!kind) {
		r = loop_uring_new(depth, ret, NULL);
		return r ? loop_poll_new(ret, err) : 0;
	}
	if (!strcmp(kind, "uring"))
		return loop_uring_new(depth, ret, err);
	if (!strcmp(kind, "poll"))
		return loop_poll_new(ret, err);
	return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "no event loop is called '%s': use uring or poll", kind);
}

void loop_free(struct loop *loop)
{
	if (loop)
		loop->ops->free(loop);
}

static void loop_run_tasks(struct loop *loop)
{
	struct list now, *node;

	list_init(&now);
	list_move_all(&now, &loop->tasks);
	while ((node = list_pop(&now))) {
		struct loop_task *task = container_of(node, struct loop_task, node);

		task->queued = false;
		task->run(task);
	}
}

/* How long the turn may wait: not beyond the first timer, not at all when there is work left. */
static uint64_t loop_patience(struct loop *loop, uint64_t timeout)
{
	struct loop_timer *first;
	uint64_t now;

	if (loop->stopped || !list_empty(&loop->tasks))
		return 0;
	if (list_empty(&loop->timers))
		return timeout;
	first = container_of(loop->timers.next, struct loop_timer, node);
	now = loop_now(loop);
	if (first->due <= now)
		return 0;
	return first->due - now < timeout ? first->due - now : timeout;
}

/* Timers that are set while this runs wait for the next turn, so that one that sets itself again cannot hang the loop. */
static void loop_expire(struct loop *loop)
{
	struct list due, *node;
	uint64_t now;

	if (list_empty(&loop->timers))
		return;
	now = loop_now(loop);
	list_init(&due);
	list_for_each_safe(at, &loop->timers) {
		if (container_of(at, struct loop_timer, node)->due > now)
			break;
		list_remove(at);
		list_push_back(&due, at);
	}
	while ((node = list_pop(&due))) {
		struct loop_timer *timer = container_of(node, struct loop_timer, node);

		timer->armed = false;
		timer->expired(timer);
	}
}

int loop_turn(struct loop *loop, uint64_t timeout)
{
	int r;

	loop_run_tasks(loop);
	r = loop->ops->wait(loop, loop_patience(loop, timeout));
	loop_expire(loop);
	return r;
}

int loop_run(struct loop *loop)
{
	int r = 0;

	while (!loop->stopped && !r)
		r = loop_turn(loop, UINT64_MAX);
	loop->stopped = false;
	return r;
}

void loop_stop(struct loop *loop)
{
	loop->stopped = true;
}

void loop_defer(struct loop *loop, struct loop_task *task)
{
	if (task->queued)
		return;
	task->queued = true;
	list_push_back(&loop->tasks, &task->node);
}

void loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t delay_ns)
{
	struct list *at;

	loop_timer_cancel(loop, timer);
	timer->armed = true;
	if (__builtin_add_overflow(loop_now(loop), delay_ns, &timer->due))
		timer->due = UINT64_MAX;
	for (at = loop->timers.prev; at != &loop->timers; at = at->prev)
		if (container_of(at, struct loop_timer, node)->due <= timer->due)
			break;
	list_push_front(at, &timer->node);
}

void loop_timer_cancel(struct loop *loop, struct loop_timer *timer)
{
	(void)loop;
	if (!timer->armed)
		return;
	timer->armed = false;
	list_remove(&timer->node);
}

int loop_watch_add(struct loop *loop, struct loop_watch *watch)
{
	int r;

	assert(!watch->armed);
	if (!loop->ops->watch)
		return -ENOTSUP;
	r = loop->ops->watch(loop, watch);
	watch->armed = !r;
	return r;
}

void loop_watch_remove(struct loop *loop, struct loop_watch *watch)
{
	if (!watch->armed)
		return;
	watch->armed = false;
	loop->ops->unwatch(loop, watch);
}

int loop_hold(struct loop *loop, int fd)
{
	/* Without a ring only threads begin things, and a process is there until they have ended. */
	return loop->ops->hold ? loop->ops->hold(loop, fd) : 0;
}

uint64_t loop_now(struct loop *loop)
{
	return loop->ops->now(loop);
}

uint64_t loop_monotonic(struct loop *loop)
{
	struct timespec now;

	(void)loop;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}
