/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * server.h - the answering side of the control socket, on the device's loop.
 *
 * A client greets first (see message.h), then asks one request after another: the next is not read before the last is answered.
 * An answer may come later. A client that goes away meanwhile changes nothing: its answer is dropped.
 */
#ifndef DAEMON_SERVER_H
#define DAEMON_SERVER_H

#include <json-c/json.h>

struct loop;
struct ploop_error;
struct server;
struct server_peer;

/* Must call server_answer() or server_refuse() once, now or later. `arguments` lives until then. */
typedef void (*server_handler)(void *data, struct server_peer *peer, const char *verb, struct json_object *arguments);

/* Listens on the socket of device `name`. */
int server_new(struct loop *loop, const char *name, server_handler handler, void *data, struct server **ret,
	       struct ploop_error *err);

/* Takes no more clients and no more requests; answers that are due can still be given. */
void server_shut(struct server *server);

/* NULL is accepted. */
void server_free(struct server *server);

/*
 * Calls gone(data) once, when the client has gone away for whatever reason; of a request that is being handled, after its answer.
 * One for each client; NULL takes it back.
 */
void server_watch_peer(struct server_peer *peer, void (*gone)(void *data), void *data);

/* `result` (may be NULL) is used up. */
void server_answer(struct server_peer *peer, struct json_object *result);
void server_refuse(struct server_peer *peer, const struct ploop_error *error);

#endif
