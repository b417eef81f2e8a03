/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbd-server.h - a device served over NBD connections: the transmission phase with simple replies, nothing before it, as the
 * kernel's driver wants it. Any number of connections speak of the same device at the same time, many requests on each.
 *
 * What comes is not believed: each field of a request is checked. A bad request is refused by its reply; where the stream itself
 * makes no sense the connection is dropped.
 */
#ifndef EXPORT_NBD_SERVER_H
#define EXPORT_NBD_SERVER_H

#include <stdbool.h>
#include <stdint.h>

struct device;
struct loop;
struct nbd_server;
struct ploop_error;

#define NBD_DEPTH_MAX 1024u

struct nbd_server_config {
	struct loop *loop;
	struct device *device;
	unsigned depth; /* device requests in flight; what comes beyond that waits in the sockets */
	bool read_only;
	/* A connection is over, and nothing that it asked for is under way any more. `goodbye`: the client said that it goes.
	 * Not called for those that nbd_server_close() ends. */
	void (*ended)(void *data, bool goodbye);
	void *data;
};

int nbd_server_new(const struct nbd_server_config *config, struct nbd_server **ret, struct ploop_error *err);

/* Serves one more connection. `fd`, a blocking stream socket, is the server's from now on, also when this fails. */
int nbd_server_add(struct nbd_server *server, int fd);

/* Connections that are served. */
unsigned nbd_server_connections(const struct nbd_server *server);

/* What the client has to be told of this server: enum nbd_wire_flag. */
uint64_t nbd_server_flags(const struct nbd_server *server);

/* The sockets; they stay the server's. Returns how many there are. */
unsigned nbd_server_sockets(const struct nbd_server *server, int *fds, unsigned max);

/* Ends all connections, waits for the requests that are under way, frees the server; then calls closed(data) on the loop. */
void nbd_server_close(struct nbd_server *server, void (*closed)(void *data), void *data);

/*
 * Takes no more requests, answers those under way, closes its sockets and frees itself. `whole`: all is answered that was taken, and
 * each socket stands between two requests, so that another server can go on with a copy of it.
 */
void nbd_server_leave(struct nbd_server *server, void (*left)(void *data, bool whole), void *data);

#endif
