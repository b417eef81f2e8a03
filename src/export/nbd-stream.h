/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbd-stream.h - one transfer at a time in one direction of a stream socket, on the loop: an entry of its ring where it has
 * one, else a call that does not block and a watch.
 */
#ifndef EXPORT_NBD_STREAM_H
#define EXPORT_NBD_STREAM_H

#include <stdbool.h>
#include <sys/socket.h>

#include "io/loop.h"

struct nbd_stream {
	/* The caller's, set before nbd_stream_init(). `done` gets what recvmsg() or sendmsg() returned, or a negative errno;
	 * it is never called from inside nbd_stream_start(). */
	struct loop *loop;
	int fd; /* blocking */
	bool out;
	void (*done)(struct nbd_stream *stream, int result);

	/* The stream's own. */
	bool busy, cancelled;
	int result;
	struct msghdr message;
	struct loop_completion completion;
	struct loop_watch watch;
	struct loop_task task;
};

void nbd_stream_init(struct nbd_stream *stream);

/* Begins a transfer. The pieces of memory and their array stay until it is done. shutdown() of the socket ends it soon. */
void nbd_stream_start(struct nbd_stream *stream, struct iovec *iov, size_t count);

/*
 * Ends a transfer that has not begun to move bytes: `done` gets -ECANCELED soon, or what came before. False when it could not be
 * asked for: again in the next turn.
 */
bool nbd_stream_cancel(struct nbd_stream *stream);

#endif
