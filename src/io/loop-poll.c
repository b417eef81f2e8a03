/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * loop-poll.c - the loop for hosts where io_uring is forbidden: ppoll() over the watched descriptors.
 *
 * A watch can be removed, and its memory be gone, while the results of the same ppoll() are still being handed out.
 * Removing one therefore also strikes it from the batch.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "io/loop-kinds.h"

struct poll_loop {
	struct loop loop;
	struct list watches;
	unsigned nwatches;
	unsigned batch; /* entries of the two arrays in use while results are handed out, else 0 */
	struct pollfd fds[LOOP_WATCHES];
	struct loop_watch *watching[LOOP_WATCHES];
};

static struct poll_loop *poll_loop(struct loop *loop)
{
	return container_of(loop, struct poll_loop, loop);
}

static void poll_collect(struct poll_loop *self)
{
	self->batch = 0;
	list_for_each(node, &self->watches) {
		struct loop_watch *watch = container_of(node, struct loop_watch, node);

		self->fds[self->batch] = (struct pollfd){ .fd = watch->fd, .events = watch->events };
		self->watching[self->batch++] = watch;
	}
}

static void poll_hand_out(struct poll_loop *self)
{
	for (unsigned i = 0; i < self->batch; i++) {
		struct loop_watch *watch = self->watching[i];
		int revents = self->fds[i].revents;

		if (!watch || !revents)
			continue;
		list_remove(&watch->node);
		self->nwatches--;
		watch->armed = false;
		watch->ready(watch, revents & POLLNVAL ? -EBADF : revents);
	}
	self->batch = 0;
}

static int poll_wait(struct loop *loop, uint64_t timeout)
{
	struct poll_loop *self = poll_loop(loop);
	struct timespec time = loop_timespec(timeout);
	int n;

	poll_collect(self);
	n = ppoll(self->fds, self->batch, timeout == UINT64_MAX ? NULL : &time, NULL);
	if (n <= 0)
		self->batch = 0;
	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	poll_hand_out(self);
	return 0;
}

static int poll_watch(struct loop *loop, struct loop_watch *watch)
{
	struct poll_loop *self = poll_loop(loop);

	if (self->nwatches == LOOP_WATCHES)
		return -ENFILE;
	self->nwatches++;
	list_push_back(&self->watches, &watch->node);
	return 0;
}

static void poll_unwatch(struct loop *loop, struct loop_watch *watch)
{
	struct poll_loop *self = poll_loop(loop);

	list_remove(&watch->node);
	self->nwatches--;
	for (unsigned i = 0; i < self->batch; i++)
		if (self->watching[i] == watch)
			self->watching[i] = NULL;
}

static void poll_free(struct loop *loop)
{
	free(poll_loop(loop));
}

static const struct loop_ops loop_poll_ops = {
	.name = "poll",
	.wait = poll_wait,
	.watch = poll_watch,
	.unwatch = poll_unwatch,
	.now = loop_monotonic,
	.free = poll_free,
};

int loop_poll_new(struct loop **ret, struct ploop_error *err)
{
	struct poll_loop *self = calloc(1, sizeof(*self));

	if (!self)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "cannot make an event loop");
	loop_init(&self->loop, &loop_poll_ops);
	list_init(&self->watches);
	*ret = &self->loop;
	return 0;
}
