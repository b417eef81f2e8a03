/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuse-channel.c - see fuse-channel.h.
 *
 * The descriptor is read until it is empty and only then watched. Replies are entries on the loop's ring where it has one:
 * those of a turn cost one system call. (Small reads as entries, chained to the wait, were tried: they cost more.)
 *
 * Copying a message of 1 MiB takes as long as dozens of small requests. Where there is a ring, its threads do it: large
 * replies always, and what follows a large message is received by them.
 */
#include "export/fuse-channel.h"

#include <errno.h>
#include <liburing.h>
#include <linux/fuse.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/checked.h"
#include "io/io.h"

#define PAGE 4096u
/* What comes before the data of a write. */
#define HEAD (sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))
#define STRIDE (PAGE + FUSE_TRANSFER_MAX)
#define RECEIVE_BUDGET 64
/* The kernel copies and pins a large message page by page, so huge pages save a third of it. As buffers are used last in,
 * first out, those of the first requests are enough; more would be memory that small messages fill with nothing. */
#define HUGE_PART (16u << 20)
#define LARGE (128 * 1024) /* bytes: worth another thread */
#define AHEAD 2u           /* messages received by other threads at once */
#define IDLE_NS UINT64_C(1000000000)

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24 /* Linux 5.18 */
#endif

static void channel_receive(struct fuse_channel *channel);

static void *request_message(struct fuse_request *request)
{
	return request->memory - HEAD;
}

/* The pool */

/* Makes all pages of the request be there. */
static void request_touch(struct fuse_request *request)
{
	char *memory = request->memory - PAGE;

	if (request->there)
		return;
	request->there = true;
	if (!madvise(memory, STRIDE, MADV_POPULATE_WRITE))
		return;
	for (size_t at = 0; at < STRIDE; at += PAGE)
		*(volatile char *)(memory + at) = 0;
}

static struct fuse_request *channel_get(struct fuse_channel *channel)
{
	struct list *node = list_pop(&channel->free);
	struct fuse_request *request;

	if (!node)
		return NULL;
	channel->busy++;
	request = container_of(node, struct fuse_request, node);
	request_touch(request);
	return request;
}

static bool give_back(void *memory, size_t length)
{
	return !madvise(memory, length, MADV_DONTNEED_LOCKED) || !madvise(memory, length, MADV_DONTNEED);
}

/* Nothing came for a while: all but the memory of one request goes. */
static void channel_shrink(struct fuse_channel *channel)
{
	if (!give_back(channel->memory + STRIDE, (size_t)STRIDE * (channel->depth - 1)))
		return;
	for (unsigned i = 1; i < channel->depth; i++)
		channel->requests[i].there = false;
	/* The first is to be the next. */
	list_remove(&channel->requests[0].node);
	list_push_front(&channel->free, &channel->requests[0].node);
}

static void channel_idle(struct loop_timer *timer)
{
	struct fuse_channel *channel = container_of(timer, struct fuse_channel, idle_timer);

	if (!channel->busy && channel->received == channel->seen) {
		channel_shrink(channel);
		return; /* the next message sets the timer again */
	}
	channel->seen = channel->received;
	loop_timer_set(channel->loop, &channel->idle_timer, IDLE_NS);
}

void fuse_channel_put(struct fuse_request *request)
{
	struct fuse_channel *channel = request->channel;

	list_push_front(&channel->free, &request->node);
	channel->busy--;
	if (channel->starved || channel->closing)
		loop_defer(channel->loop, &channel->task);
}

/* Either it is time to receive again, or all is over. */
static void channel_run(struct loop_task *task)
{
	struct fuse_channel *channel = container_of(task, struct fuse_channel, task);

	channel->starved = false;
	if (!channel->closing)
		channel_receive(channel);
	else if (!channel->busy)
		channel->closed(channel);
}

static void channel_end(struct fuse_channel *channel)
{
	if (channel->over)
		return;
	channel->over = true;
	loop_timer_cancel(channel->loop, &channel->idle_timer);
	channel->ended(channel);
}

/* What a read brought. ENOENT: the request was aborted while it was read. */
static void channel_take(struct fuse_request *request, int result)
{
	struct fuse_channel *channel = request->channel;

	if (result > 0) {
		channel->received++;
		if (!channel->idle_timer.armed && !channel->over)
			loop_timer_set(channel->loop, &channel->idle_timer, IDLE_NS);
		channel->handle(channel, request, request_message(request), (size_t)result);
		return;
	}
	fuse_channel_put(request);
	if (result != -EAGAIN && result != -EINTR && result != -ENOENT)
		channel_end(channel);
}

/* Receiving by the ring's threads, as long as large messages come */

static void channel_read_ahead(struct fuse_channel *channel, struct io_uring *ring)
{
	while (channel->reading < AHEAD && !list_empty(&channel->free)) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
		struct fuse_request *request;

		if (!sqe)
			break;
		request = channel_get(channel);
		io_uring_prep_read(sqe, channel->fd, request_message(request), HEAD + FUSE_TRANSFER_MAX, 0);
		sqe->flags |= IOSQE_ASYNC;
		io_uring_sqe_set_data(sqe, &request->received);
		channel->reading++;
	}
	if (channel->reading)
		return;
	if (list_empty(&channel->free))
		channel->starved = true;
	else
		loop_defer(channel->loop, &channel->task);
}

static void channel_received(struct loop_completion *completion, int result, unsigned flags)
{
	struct fuse_request *request = container_of(completion, struct fuse_request, received);
	struct fuse_channel *channel = request->channel;

	(void)flags;
	channel->reading--;
	channel->empty |= result == -EAGAIN;
	channel->bulk &= result < 0 || result >= LARGE;
	channel_take(request, result);
	if (channel->over)
		return;
	if (channel->bulk && !channel->empty)
		channel_read_ahead(channel, loop_ring(channel->loop));
	else if (!channel->reading && channel->empty)
		(void)loop_watch_add(channel->loop, &channel->watch);
	else if (!channel->reading)
		loop_defer(channel->loop, &channel->task);
}

/* Receiving */

static void channel_receive(struct fuse_channel *channel)
{
	struct io_uring *ring = loop_ring(channel->loop);

	if (channel->over || channel->reading || channel->watch.armed)
		return;
	channel->empty = false;
	if (ring && channel->bulk) {
		channel_read_ahead(channel, ring);
		return;
	}
	for (unsigned budget = RECEIVE_BUDGET; budget && !channel->over; budget--) {
		struct fuse_request *request = channel_get(channel);
		ssize_t n;

		if (!request) {
			channel->starved = true;
			return;
		}
		n = read(channel->fd, request_message(request), HEAD + FUSE_TRANSFER_MAX);
		n = n < 0 ? -errno : n;
		channel_take(request, (int)n);
		if (n == -EAGAIN) {
			(void)loop_watch_add(channel->loop, &channel->watch);
			return;
		}
		/* Copying it took long: let the disk begin before the next, and have that copied by others. */
		channel->bulk = n >= LARGE;
		if (channel->bulk)
			break;
	}
	if (!channel->over)
		loop_defer(channel->loop, &channel->task);
}

static void channel_ready(struct loop_watch *watch, int revents)
{
	(void)revents;
	channel_receive(container_of(watch, struct fuse_channel, watch));
}

/* Replying */

static bool reply_start(struct fuse_request *request)
{
	struct io_uring *ring = loop_ring(request->channel->loop);
	struct io_uring_sqe *sqe = ring ? io_uring_get_sqe(ring) : NULL;

	if (!sqe)
		return false;
	io_uring_prep_writev(sqe, request->channel->fd, request->reply, request->reply[1].iov_len ? 2 : 1, 0);
	if (request->reply[1].iov_len >= LARGE)
		sqe->flags |= IOSQE_ASYNC;
	io_uring_sqe_set_data(sqe, &request->replied);
	return true;
}

/*
 * A reply that gets -ENOENT belongs to a request that was aborted: nobody waits for it. One that the ring could not write is
 * written here, as whoever asked would wait for ever.
 */
static void channel_replied(struct loop_completion *completion, int result, unsigned flags)
{
	struct fuse_request *request = container_of(completion, struct fuse_request, replied);

	(void)flags;
	if (result == -EAGAIN || result == -EINTR || result == -ENOMEM)
		(void)!writev(request->channel->fd, request->reply, request->reply[1].iov_len ? 2 : 1);
	fuse_channel_put(request);
}

bool fuse_channel_reply(struct fuse_request *request, const struct iovec *iov, int count)
{
	bool in_place = count == 2 && iov[1].iov_base == request->memory;
	size_t head = 0;

	for (int i = 0; i < count - in_place; i++) {
		if (iov[i].iov_len > FUSE_REPLY_HEAD - head)
			return false;
		memcpy(request->head + head, iov[i].iov_base, iov[i].iov_len);
		head += iov[i].iov_len;
	}
	request->reply[0] = (struct iovec){ request->head, head };
	request->reply[1] = in_place ? iov[1] : (struct iovec){ 0 };
	return reply_start(request);
}

/* Making and ending */

int fuse_channel_init(struct fuse_channel *channel)
{
	list_init(&channel->free);
	channel->task.run = channel_run;
	channel->idle_timer.expired = channel_idle;
	channel->watch = (struct loop_watch){ .fd = channel->fd, .events = POLLIN, .ready = channel_ready };
	channel->memory = io_buffer_new((size_t)STRIDE * channel->depth);
	channel->requests = io_buffer_new(channel->depth * sizeof(*channel->requests));
	if (!channel->memory || !channel->requests)
		return -ENOMEM;
	(void)madvise(channel->memory, min_u64(HUGE_PART, (uint64_t)STRIDE * channel->depth), MADV_HUGEPAGE);
	for (unsigned i = channel->depth; i--;) {
		struct fuse_request *request = &channel->requests[i];

		request->channel = channel;
		request->memory = channel->memory + (size_t)i * STRIDE + PAGE;
		request->received.done = channel_received;
		request->replied.done = channel_replied;
		list_push_front(&channel->free, &request->node);
	}
	return 0;
}

void fuse_channel_fini(struct fuse_channel *channel)
{
	io_buffer_free(channel->memory, (size_t)STRIDE * channel->depth);
	io_buffer_free(channel->requests, channel->depth * sizeof(*channel->requests));
}

int fuse_channel_start(struct fuse_channel *channel)
{
	return loop_watch_add(channel->loop, &channel->watch);
}

void fuse_channel_close(struct fuse_channel *channel)
{
	channel->over = channel->closing = true;
	loop_timer_cancel(channel->loop, &channel->idle_timer);
	loop_watch_remove(channel->loop, &channel->watch);
	loop_defer(channel->loop, &channel->task);
}
