/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbd-server.c - see nbd-server.h. Requests are of a pool that all connections share, taken last in, first out, so that a device
 * that is never asked for much touches little memory. Each has room for what the kernel asks for at once; the few that are
 * larger share one place that is as large as the protocol allows, one after the other.
 */
#include "export/nbd-server.h"

#include <assert.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/error.h"
#include "device/device.h"
#include "export/nbd-conn.h"
#include "io/io.h"
#include "io/loop.h"

#define SECTOR_SIZE 512u
#define ROOM (1u << 20) /* bytes of data of a request */

struct nbd_server {
	struct nbd_server_config config;
	struct nbd_request *requests;
	char *memory, *large;
	bool large_busy;
	struct list free;
	struct list conns;
	unsigned nconns;
	struct list waiting; /* connections that want a request */
	struct loop_task task;
	bool closing, whole;
	void (*closed)(void *data);
	void (*left)(void *data, bool whole);
	void *closed_data;
};

/* The pool */

static struct nbd_request *server_take(struct nbd_conn *conn, uint32_t size)
{
	struct nbd_server *server = conn->owner;
	bool large = size > ROOM;
	struct nbd_request *request;

	if (list_empty(&server->free) || (large && server->large_busy)) {
		list_remove(&conn->waiting);
		list_push_back(&server->waiting, &conn->waiting);
		return NULL;
	}
	request = container_of(list_pop(&server->free), struct nbd_request, node);
	request->memory = large ? server->large : server->memory + (size_t)(request - server->requests) * ROOM;
	server->large_busy |= large;
	return request;
}

static void server_put(struct nbd_request *request)
{
	struct nbd_server *server = request->conn->owner;

	if (request->memory == server->large)
		server->large_busy = false;
	list_push_front(&server->free, &request->node);
	if (!list_empty(&server->waiting))
		loop_defer(server->config.loop, &server->task);
}

/* Requests */

static int server_check_range(const struct nbd_server *server, const struct nbd_wire_request *wire)
{
	uint64_t end;

	if (!wire->length || wire->offset % SECTOR_SIZE || wire->length % SECTOR_SIZE ||
	    !checked_add(wire->offset, wire->length, &end))
		return -EINVAL;
	if (end <= device_size(server->config.device))
		return 0;
	return wire->command == NBD_WIRE_READ || wire->command == NBD_WIRE_TRIM ? -EINVAL : -ENOSPC;
}

static int server_check(const struct nbd_conn *conn, const struct nbd_wire_request *wire)
{
	const struct nbd_server *server = conn->owner;
	unsigned flags = NBD_WIRE_FUA;

	switch (wire->command) {
	case NBD_WIRE_FLUSH:
		return wire->flags & ~flags || wire->offset || wire->length ? -EINVAL : 0;
	case NBD_WIRE_READ:
		if (wire->length > NBD_WIRE_TRANSFER_MAX)
			return -EOVERFLOW;
		break;
	case NBD_WIRE_WRITE_ZEROES:
		flags |= NBD_WIRE_NO_HOLE;
		break;
	case NBD_WIRE_WRITE:
	case NBD_WIRE_TRIM:
		break;
	default:
		return -EINVAL;
	}
	if (wire->flags & ~flags)
		return -EINVAL;
	if (server->config.read_only && wire->command != NBD_WIRE_READ)
		return -EPERM;
	return server_check_range(server, wire);
}

static void server_done(struct device_request *device, int result)
{
	nbd_conn_reply(container_of(device, struct nbd_request, device), result);
}

static void server_handle(struct nbd_request *request)
{
	/* NO_HOLE is a wish for space that is there already, which a disk that grows as it is written has for nobody. */
	static const enum device_kind kinds[] = {
		[NBD_WIRE_READ] = DEVICE_READ,
		[NBD_WIRE_WRITE] = DEVICE_WRITE,
		[NBD_WIRE_FLUSH] = DEVICE_FLUSH,
		[NBD_WIRE_TRIM] = DEVICE_DISCARD,
		[NBD_WIRE_WRITE_ZEROES] = DEVICE_WRITE_ZEROES,
	};
	struct nbd_server *server = request->conn->owner;
	struct device_request *device = &request->device;

	device->kind = kinds[request->wire.command];
	device->flags =
		request->wire.flags & NBD_WIRE_FUA && device->kind != DEVICE_READ && device->kind != DEVICE_FLUSH
			? DEVICE_FUA
			: 0;
	device->offset = request->wire.offset;
	device->length = request->wire.length;
	device->buffer = request->memory;
	device->done = server_done;
	if (device->kind == DEVICE_FLUSH && server->config.read_only)
		nbd_conn_reply(request, 0);
	else
		device_submit(server->config.device, device);
}

/* Life */

static void server_free(struct nbd_server *server)
{
	io_buffer_free(server->memory, (size_t)server->config.depth * ROOM);
	io_buffer_free(server->large, NBD_WIRE_TRANSFER_MAX);
	io_buffer_free(server->requests, server->config.depth * sizeof(*server->requests));
	free(server);
}

static void server_ended(struct nbd_conn *conn)
{
	struct nbd_server *server = conn->owner;
	bool goodbye = conn->goodbye, whole = conn->whole;

	list_remove(&conn->node);
	list_remove(&conn->waiting);
	free(conn);
	server->nconns--;
	server->whole &= whole;
	if (!server->closing)
		server->config.ended(server->config.data, goodbye);
	else if (!server->nconns)
		loop_defer(server->config.loop, &server->task);
}

static void server_finish(struct nbd_server *server)
{
	void (*closed)(void *data) = server->closed;
	void (*left)(void *data, bool whole) = server->left;
	void *data = server->closed_data;
	bool whole = server->whole;

	server_free(server);
	if (left)
		left(data, whole);
	else
		closed(data);
}

/* All is over, or there are requests for those who wait; who gets none goes to the end of the list again. */
static void server_run(struct loop_task *task)
{
	struct nbd_server *server = container_of(task, struct nbd_server, task);
	struct list waiting, *node;

	if (server->closing && !server->nconns) {
		server_finish(server);
		return;
	}
	list_init(&waiting);
	list_move_all(&waiting, &server->waiting);
	while ((node = list_pop(&waiting)))
		nbd_conn_resume(container_of(node, struct nbd_conn, waiting));
}

static const struct nbd_conn_ops server_conn_ops = {
	.check = server_check,
	.take = server_take,
	.handle = server_handle,
	.put = server_put,
	.ended = server_ended,
};

int nbd_server_new(const struct nbd_server_config *config, struct nbd_server **ret, struct ploop_error *err)
{
	struct nbd_server *server = calloc(1, sizeof(*server));

	assert(config->depth && config->depth <= NBD_DEPTH_MAX);
	if (!server)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "cannot serve NBD");
	server->config = *config;
	server->task.run = server_run;
	list_init(&server->free);
	list_init(&server->conns);
	list_init(&server->waiting);
	server->memory = io_buffer_new((size_t)config->depth * ROOM);
	server->large = io_buffer_new(NBD_WIRE_TRANSFER_MAX);
	server->requests = io_buffer_new(config->depth * sizeof(*server->requests));
	if (!server->memory || !server->large || !server->requests) {
		server_free(server);
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "cannot serve NBD");
	}
	for (unsigned i = config->depth; i--;)
		list_push_front(&server->free, &server->requests[i].node);
	*ret = server;
	return 0;
}

int nbd_server_add(struct nbd_server *server, int fd)
{
	struct nbd_conn *conn = calloc(1, sizeof(*conn));

	if (!conn) {
		close(fd);
		return -ENOMEM;
	}
	conn->ops = &server_conn_ops;
	conn->loop = server->config.loop;
	conn->fd = fd;
	conn->owner = server;
	list_init(&conn->waiting);
	list_push_back(&server->conns, &conn->node);
	server->nconns++;
	nbd_conn_start(conn);
	return 0;
}

unsigned nbd_server_connections(const struct nbd_server *server)
{
	return server->nconns;
}

uint64_t nbd_server_flags(const struct nbd_server *server)
{
	uint64_t flags = NBD_WIRE_HAS_FLAGS | NBD_WIRE_SEND_FLUSH | NBD_WIRE_MULTI_CONN;

	if (server->config.read_only)
		return flags | NBD_WIRE_READ_ONLY;
	return flags | NBD_WIRE_SEND_FUA | NBD_WIRE_SEND_TRIM | NBD_WIRE_SEND_WRITE_ZEROES;
}

unsigned nbd_server_sockets(const struct nbd_server *server, int *fds, unsigned max)
{
	unsigned n = 0;

	list_for_each_safe (node, &server->conns) {
		if (n < max)
			fds[n] = container_of(node, struct nbd_conn, node)->fd;
		n++;
	}
	return n;
}

static void server_end(struct nbd_server *server, void (*end)(struct nbd_conn *conn))
{
	server->closing = true;
	list_for_each_safe (node, &server->conns)
		end(container_of(node, struct nbd_conn, node));
	loop_defer(server->config.loop, &server->task);
}

void nbd_server_close(struct nbd_server *server, void (*closed)(void *data), void *data)
{
	server->closed = closed;
	server->closed_data = data;
	server_end(server, nbd_conn_end);
}

void nbd_server_leave(struct nbd_server *server, void (*left)(void *data, bool whole), void *data)
{
	server->left = left;
	server->closed_data = data;
	server->whole = true;
	server_end(server, nbd_conn_leave);
}
