/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbd-conn.h - for nbd-server.c: one connection, bytes in and bytes out.
 *
 *	bytes -> inbox -> header parsed -> request taken -> (data of a write) -> nbd_conn_ops.handle() -> nbd_conn_reply() -> bytes
 *
 * The data of a write goes from the socket into the request's own memory, and that of a read from there into the socket: but for
 * what came in one piece with a header, nothing is copied. Replies that are ready together are sent together.
 *
 * A connection that is over (by a goodbye, its end, an error, or nbd_conn_end()) receives nothing more. When what it asked for is
 * answered and nothing is under way, it is closed and ops->ended() is called.
 *
 * One that is left takes exactly what is missing of a request, so that the next byte in the socket begins another.
 */
#ifndef EXPORT_NBD_CONN_H
#define EXPORT_NBD_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "device/device.h"
#include "export/nbd-stream.h"
#include "export/nbd-wire.h"
#include "io/loop.h"

#define NBD_CONN_INBOX 4096u
#define NBD_CONN_BATCH 64u /* replies sent at once */

struct nbd_conn;

struct nbd_request {
	struct device_request device;
	struct nbd_conn *conn;
	struct list node; /* where it waits: free, or replies that are ready, or being sent */
	char *memory;     /* for its data */
	uint32_t data;    /* bytes of data in the reply */
	struct nbd_wire_request wire;
	unsigned char head[NBD_WIRE_REPLY];
};

struct nbd_conn_ops {
	/* 0, or a negative errno with which the request is refused. */
	int (*check)(const struct nbd_conn *conn, const struct nbd_wire_request *wire);
	/* A request with memory for `size` bytes of data, or NULL: then nbd_conn_resume() has to be called when there is one. */
	struct nbd_request *(*take)(struct nbd_conn *conn, uint32_t size);
	/* A good request, with its data. Ends in nbd_conn_reply(). */
	void (*handle)(struct nbd_request *request);
	/* The request was answered, as far as there is anybody who listens. */
	void (*put)(struct nbd_request *request);
	/* The connection is closed; its memory is the callee's. Called from the loop. */
	void (*ended)(struct nbd_conn *conn);
};

struct nbd_conn {
	/* The caller's, set before nbd_conn_start(). */
	const struct nbd_conn_ops *ops;
	struct loop *loop;
	int fd;
	struct list node, waiting; /* for lists of the caller's */
	void *owner;

	bool goodbye; /* the client has said that it goes */
	bool whole;   /* it was left between two requests, with nothing unanswered */

	/* The connection's own. */
	bool over, broken;       /* nothing more is received; nothing is sent */
	bool leaving, cancelled; /* ... from the end of this request on; what waited for more was told so */
	unsigned busy;           /* requests that are not put */
	struct nbd_stream in, out;
	struct iovec in_iov[2];
	size_t at, have;              /* bytes at..have of the inbox are not yet parsed */
	struct nbd_request *incoming; /* a write whose data is coming */
	size_t got;                   /* of it */
	size_t skip;                  /* bytes of data of a refused write that are still to come */
	struct list ready, sending;
	struct iovec out_iov[2 * NBD_CONN_BATCH];
	unsigned out_at, out_count;
	struct loop_task task;
	unsigned char inbox[NBD_CONN_INBOX];
};

void nbd_conn_start(struct nbd_conn *conn);
/* There may be memory again. */
void nbd_conn_resume(struct nbd_conn *conn);
void nbd_conn_reply(struct nbd_request *request, int result);
void nbd_conn_end(struct nbd_conn *conn);
/* Receives no more, but for the rest of a request that has begun to come, answers all, and is over. The socket is only closed: whoever
 * has a copy of it can go on where this ended. */
void nbd_conn_leave(struct nbd_conn *conn);

#endif
