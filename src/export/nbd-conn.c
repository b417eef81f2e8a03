/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* nbd-conn.c - see nbd-conn.h. */
#include "export/nbd-conn.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"

static void conn_parse(struct nbd_conn *conn);

/* The end: nobody sends, nobody receives, and no request is out. Always seen to by the task, so never inside a caller's call. */
static bool conn_is_idle(const struct nbd_conn *conn)
{
	return !conn->in.busy && !conn->out.busy && !conn->busy;
}

static void conn_over(struct nbd_conn *conn)
{
	conn->over = true;
	loop_defer(conn->loop, &conn->task);
}

/* Nothing that comes, or goes, can be relied on any more. */
static void conn_break(struct nbd_conn *conn)
{
	conn->broken = true;
	(void)shutdown(conn->fd, SHUT_RDWR);
	conn_over(conn);
}

/* In */

static bool conn_between_requests(const struct nbd_conn *conn)
{
	return !conn->incoming && !conn->skip && conn->at == conn->have;
}

/* How much may come into the inbox. */
static size_t conn_wanted(const struct nbd_conn *conn)
{
	size_t rest = conn->have - conn->at, room = NBD_CONN_INBOX - rest;

	if (!conn->leaving)
		return room;
	if (conn->incoming)
		return 0;
	return conn->skip ? min_u64(conn->skip, room) : NBD_WIRE_REQUEST - rest;
}

static void conn_receive(struct nbd_conn *conn)
{
	size_t n = 0, rest = conn->have - conn->at, wanted = conn_wanted(conn);
	struct nbd_request *request = conn->incoming;

	if (conn->over || conn->in.busy)
		return;
	if (conn->leaving && conn_between_requests(conn)) {
		conn_over(conn);
		return;
	}
	memmove(conn->inbox, conn->inbox + conn->at, rest);
	conn->at = 0;
	conn->have = rest;
	if (request)
		conn->in_iov[n++] = (struct iovec){ request->memory + conn->got, request->wire.length - conn->got };
	if (wanted)
		conn->in_iov[n++] = (struct iovec){ conn->inbox + rest, wanted };
	nbd_stream_start(&conn->in, conn->in_iov, n);
}

static void conn_received(struct nbd_stream *stream, int result)
{
	struct nbd_conn *conn = container_of(stream, struct nbd_conn, in);
	size_t n = (size_t)result, data;

	if (result == -ECANCELED && conn->leaving && !conn->over) {
		conn_parse(conn);
		return;
	}
	if (result <= 0 || conn->over) {
		if (result < 0)
			conn_break(conn);
		conn_over(conn);
		return;
	}
	if (conn->incoming) {
		data = min_u64(n, conn->incoming->wire.length - conn->got);
		conn->got += data;
		n -= data;
	}
	conn->have += n;
	conn_parse(conn);
}

/* Bytes of the inbox that belong to data. */
static size_t conn_inbox_take(struct nbd_conn *conn, size_t wanted)
{
	size_t n = min_u64(wanted, conn->have - conn->at);

	conn->at += n;
	return n;
}

/* Data of a write. False when more must come first. */
static bool conn_take_data(struct nbd_conn *conn)
{
	struct nbd_request *request = conn->incoming;
	const unsigned char *from = conn->inbox + conn->at;
	size_t n;

	conn->skip -= conn_inbox_take(conn, conn->skip);
	if (conn->skip)
		return false;
	if (!request)
		return true;
	n = conn_inbox_take(conn, request->wire.length - conn->got);
	memcpy(request->memory + conn->got, from, n);
	conn->got += n;
	if (conn->got < request->wire.length)
		return false;
	conn->incoming = NULL;
	conn->ops->handle(request);
	return true;
}

static void conn_begin(struct nbd_conn *conn, struct nbd_request *request, int refused)
{
	bool write = request->wire.command == NBD_WIRE_WRITE;

	if (refused) {
		conn->skip = write ? request->wire.length : 0;
		nbd_conn_reply(request, refused);
	} else if (write) {
		conn->incoming = request;
		conn->got = 0;
	} else {
		conn->ops->handle(request);
	}
}

/* One header. False when it has not come, or has to wait, or is the last. */
static bool conn_take_request(struct nbd_conn *conn)
{
	struct nbd_wire_request wire;
	struct nbd_request *request;
	int refused;

	if (conn->have - conn->at < NBD_WIRE_REQUEST)
		return false;
	if (!nbd_wire_parse(conn->inbox + conn->at, &wire) ||
	    (wire.command == NBD_WIRE_WRITE && wire.length > NBD_WIRE_TRANSFER_MAX)) {
		conn_break(conn);
		return false;
	}
	if (wire.command == NBD_WIRE_DISCONNECT) {
		conn->goodbye = true;
		conn_over(conn);
		return false;
	}
	refused = conn->ops->check(conn, &wire);
	request = conn->ops->take(conn, !refused && wire.command <= NBD_WIRE_WRITE ? wire.length : 0);
	if (!request)
		return false;
	conn->at += NBD_WIRE_REQUEST;
	conn->busy++;
	request->conn = conn;
	request->wire = wire;
	conn_begin(conn, request, refused);
	return true;
}

/* All that has come. While a header waits for memory nothing more is received: the client has to wait, too. */
static void conn_parse(struct nbd_conn *conn)
{
	while (!conn->over && conn_take_data(conn) && conn_take_request(conn))
		;
	if (conn->skip || conn->incoming || conn->have - conn->at < NBD_WIRE_REQUEST)
		conn_receive(conn);
}

void nbd_conn_resume(struct nbd_conn *conn)
{
	if (!conn->in.busy)
		conn_parse(conn);
}

/* Out */

static void conn_put(struct nbd_request *request)
{
	struct nbd_conn *conn = request->conn;

	conn->busy--;
	conn->ops->put(request);
	if (conn->over)
		loop_defer(conn->loop, &conn->task);
}

static void conn_put_all(struct list *list)
{
	struct list *node;

	while ((node = list_pop(list)))
		conn_put(container_of(node, struct nbd_request, node));
}

static void conn_send(struct nbd_conn *conn)
{
	struct list *node;

	if (conn->broken)
		conn_put_all(&conn->ready);
	if (conn->out.busy || list_empty(&conn->ready))
		return;
	conn->out_at = conn->out_count = 0;
	while (conn->out_count <= 2 * NBD_CONN_BATCH - 2 && (node = list_pop(&conn->ready))) {
		struct nbd_request *request = container_of(node, struct nbd_request, node);

		list_push_back(&conn->sending, node);
		conn->out_iov[conn->out_count++] = (struct iovec){ request->head, NBD_WIRE_REPLY };
		if (request->data)
			conn->out_iov[conn->out_count++] = (struct iovec){ request->memory, request->data };
	}
	nbd_stream_start(&conn->out, conn->out_iov, conn->out_count);
}

/* True when all is sent. */
static bool conn_advance(struct nbd_conn *conn, size_t n)
{
	for (; conn->out_at < conn->out_count && n >= conn->out_iov[conn->out_at].iov_len; conn->out_at++)
		n -= conn->out_iov[conn->out_at].iov_len;
	if (conn->out_at == conn->out_count)
		return true;
	conn->out_iov[conn->out_at].iov_base = (char *)conn->out_iov[conn->out_at].iov_base + n;
	conn->out_iov[conn->out_at].iov_len -= n;
	return false;
}

static void conn_sent(struct nbd_stream *stream, int result)
{
	struct nbd_conn *conn = container_of(stream, struct nbd_conn, out);

	if (result < 0)
		conn_break(conn);
	if (result >= 0 && !conn_advance(conn, (size_t)result)) {
		nbd_stream_start(&conn->out, conn->out_iov + conn->out_at, conn->out_count - conn->out_at);
		return;
	}
	conn_put_all(&conn->sending);
	conn_send(conn);
}

void nbd_conn_reply(struct nbd_request *request, int result)
{
	struct nbd_conn *conn = request->conn;

	request->data = !result && request->wire.command == NBD_WIRE_READ ? request->wire.length : 0;
	nbd_wire_reply(request->head, nbd_wire_error(result), request->wire.handle);
	list_push_back(&conn->ready, &request->node);
	/* From the loop, so that what gets ready in the same turn goes with it. */
	loop_defer(conn->loop, &conn->task);
}

/* Life */

/* What waits for more than the rest of a request has to wait for less. */
static void conn_stop_waiting(struct nbd_conn *conn)
{
	if (!conn->leaving || conn->cancelled)
		return;
	conn->cancelled = nbd_stream_cancel(&conn->in);
	if (!conn->cancelled)
		loop_defer(conn->loop, &conn->task);
}

static void conn_run(struct loop_task *task)
{
	struct nbd_conn *conn = container_of(task, struct nbd_conn, task);

	conn_stop_waiting(conn);
	if (conn->over && conn->incoming) { /* its data will not come */
		struct nbd_request *request = conn->incoming;

		if (conn->in.busy)
			return;
		conn->incoming = NULL;
		conn_put(request);
	}
	conn_send(conn);
	if (!conn->over || !conn_is_idle(conn) || conn->task.queued)
		return;
	conn->whole = conn->leaving && !conn->broken && conn_between_requests(conn);
	close(conn->fd);
	conn->ops->ended(conn);
}

void nbd_conn_start(struct nbd_conn *conn)
{
	list_init(&conn->ready);
	list_init(&conn->sending);
	conn->task.run = conn_run;
	conn->in.loop = conn->out.loop = conn->loop;
	conn->in.fd = conn->out.fd = conn->fd;
	conn->in.done = conn_received;
	conn->out.done = conn_sent;
	conn->out.out = true;
	nbd_stream_init(&conn->in);
	nbd_stream_init(&conn->out);
	conn_receive(conn);
}

void nbd_conn_end(struct nbd_conn *conn)
{
	conn_break(conn);
}

void nbd_conn_leave(struct nbd_conn *conn)
{
	conn->leaving = true;
	loop_defer(conn->loop, &conn->task);
}
