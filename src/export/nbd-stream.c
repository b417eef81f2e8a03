/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* nbd-stream.c - see nbd-stream.h. */
#include "export/nbd-stream.h"

#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <poll.h>

static void stream_try(struct nbd_stream *stream);

static void stream_again_or_done(struct nbd_stream *stream, int result)
{
	bool again = result == -EAGAIN || result == -EINTR;

	if (again && !stream->cancelled) {
		stream_try(stream);
		return;
	}
	stream->busy = false;
	stream->done(stream, again ? -ECANCELED : result);
}

static void stream_completed(struct loop_completion *completion, int result, unsigned flags)
{
	struct nbd_stream *stream = container_of(completion, struct nbd_stream, completion);

	(void)flags;
	stream_again_or_done(stream, result);
}

static void stream_ready(struct loop_watch *watch, int revents)
{
	(void)revents;
	stream_try(container_of(watch, struct nbd_stream, watch));
}

/* By a ring that is full: again in the next turn, which empties it. Else: the transfer is over. */
static void stream_run(struct loop_task *task)
{
	struct nbd_stream *stream = container_of(task, struct nbd_stream, task);

	stream_again_or_done(stream, stream->result);
}

static void stream_later(struct nbd_stream *stream, int result)
{
	stream->result = result;
	loop_defer(stream->loop, &stream->task);
}

static void stream_call(struct nbd_stream *stream)
{
	ssize_t n = stream->out ? sendmsg(stream->fd, &stream->message, MSG_NOSIGNAL | MSG_DONTWAIT)
				: recvmsg(stream->fd, &stream->message, MSG_DONTWAIT);
	int r = n < 0 ? -errno : (int)n;

	if (r == -EAGAIN) {
		r = loop_watch_add(stream->loop, &stream->watch);
		if (!r)
			return;
	}
	stream_later(stream, r);
}

static void stream_try(struct nbd_stream *stream)
{
	struct io_uring *ring = loop_ring(stream->loop);
	struct io_uring_sqe *sqe;

	if (!ring) {
		stream_call(stream);
		return;
	}
	sqe = io_uring_get_sqe(ring);
	if (!sqe) {
		stream_later(stream, -EAGAIN);
		return;
	}
	if (stream->out)
		io_uring_prep_sendmsg(sqe, stream->fd, &stream->message, MSG_NOSIGNAL);
	else
		io_uring_prep_recvmsg(sqe, stream->fd, &stream->message, 0);
	io_uring_sqe_set_data(sqe, &stream->completion);
}

void nbd_stream_init(struct nbd_stream *stream)
{
	stream->busy = false;
	stream->completion.done = stream_completed;
	stream->task.run = stream_run;
	stream->watch = (struct loop_watch){ .fd = stream->fd,
					     .events = stream->out ? POLLOUT : POLLIN,
					     .ready = stream_ready };
}

void nbd_stream_start(struct nbd_stream *stream, struct iovec *iov, size_t count)
{
	assert(!stream->busy);
	stream->busy = true;
	stream->cancelled = false;
	stream->message = (struct msghdr){ .msg_iov = iov, .msg_iovlen = count };
	stream_try(stream);
}

bool nbd_stream_cancel(struct nbd_stream *stream)
{
	struct io_uring *ring = loop_ring(stream->loop);
	struct io_uring_sqe *sqe;

	if (!stream->busy)
		return true;
	stream->cancelled = true;
	if (stream->task.queued)
		return true;
	if (!ring) {
		loop_watch_remove(stream->loop, &stream->watch);
		stream_later(stream, -ECANCELED);
		return true;
	}
	sqe = io_uring_get_sqe(ring);
	if (!sqe)
		return false;
	io_uring_prep_cancel(sqe, &stream->completion, 0);
	io_uring_sqe_set_data64(sqe, 0);
	return true;
}
