/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * server.c - clients of the control socket. Each is in one of four states, and watches its descriptor for one thing at most:
 *
 *	READING (POLLIN) -> BUSY (nothing) -> WRITING (POLLOUT, when the socket is full) -> READING
 *	any of them -> GONE, freed at once, or when the answer that it is due comes
 */
#include "daemon/server.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/list.h"
#include "base/log.h"
#include "control/message.h"
#include "control/socket.h"
#include "io/loop.h"

#define PEERS 64 /* more at once are turned away */

struct server {
	struct loop *loop;
	server_handler handler;
	void *data;
	char *name;
	struct loop_watch watch;
	struct list peers;
	unsigned npeers;
	bool shut;
};

enum peer_state {
	PEER_READING,
	PEER_BUSY,
	PEER_WRITING,
	PEER_GONE,
};

struct server_peer {
	struct server *server;
	struct list node;
	enum peer_state state;
	bool greeted;
	struct loop_watch watch;
	struct loop_task next; /* goes on reading; from the loop, so that a flood of requests is no recursion */
	struct message_buffer in;
	struct json_object *request;
	uint64_t id;
	char *out;
	size_t out_length, out_done;
	void (*gone)(void *data);
	void *gone_data;
};

static void peer_free(struct server_peer *peer)
{
	if (peer->gone)
		peer->gone(peer->gone_data);
	list_remove(&peer->node);
	peer->server->npeers--;
	if (peer->watch.armed)
		loop_watch_remove(peer->server->loop, &peer->watch);
	if (peer->next.queued)
		list_remove(&peer->next.node);
	if (peer->watch.fd >= 0)
		close(peer->watch.fd);
	message_buffer_free(&peer->in);
	json_object_put(peer->request);
	free(peer->out);
	free(peer);
}

/* The client is no more. While a handler still owes an answer, the struct stays. */
static void peer_gone(struct server_peer *peer)
{
	if (peer->state != PEER_BUSY) {
		peer_free(peer);
		return;
	}
	close(peer->watch.fd);
	peer->watch.fd = -EBADF;
	peer->state = PEER_GONE;
}

static void peer_watch(struct server_peer *peer, short events)
{
	peer->watch.events = events;
	if (loop_watch_add(peer->server->loop, &peer->watch) < 0)
		peer_gone(peer);
}

/* Sends what is left; when all of it is out, goes on reading. */
static void peer_flush(struct server_peer *peer)
{
	while (peer->out_done < peer->out_length) {
		ssize_t n = send(peer->watch.fd, peer->out + peer->out_done, peer->out_length - peer->out_done,
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			peer_watch(peer, POLLOUT);
			return;
		}
		if (n < 0) {
			peer_free(peer);
			return;
		}
		peer->out_done += (size_t)n;
	}
	free(take_ptr(peer->out));
	peer->state = PEER_READING;
	loop_defer(peer->server->loop, &peer->next);
}

/* Sends an answer, which is used up. */
static void peer_send(struct server_peer *peer, struct json_object *answer)
{
	bool gone = peer->state == PEER_GONE;
	int r = -ENOMEM;

	json_object_put(take_ptr(peer->request));
	peer->state = PEER_WRITING;
	if (!gone && answer)
		r = message_print(answer, &peer->out, &peer->out_length);
	json_object_put(answer);
	if (gone || r < 0) {
		peer_free(peer);
		return;
	}
	peer->out_done = 0;
	peer_flush(peer);
}

void server_watch_peer(struct server_peer *peer, void (*gone)(void *data), void *data)
{
	peer->gone = gone;
	peer->gone_data = data;
}

void server_answer(struct server_peer *peer, struct json_object *result)
{
	peer_send(peer, message_answer(peer->id, result));
}

void server_refuse(struct server_peer *peer, const struct ploop_error *error)
{
	peer_send(peer, message_refusal(peer->id, error));
}

static void greet(struct server_peer *peer, struct json_object *request)
{
	struct json_object *result;
	struct ploop_error err;
	uint64_t protocol;
	int r;

	r = message_number(request, "protocol", UINT32_MAX, &protocol, &err);
	if (r == 0 && protocol != MESSAGE_PROTOCOL)
		r = error_set(&err, -EPROTO, PLOOP_EXIT_PROTOCOL,
			      "%s: its ploopd is of another version (%s, protocol %d)", peer->server->name,
			      PLOOP_VERSION, MESSAGE_PROTOCOL);
	if (r < 0) {
		server_refuse(peer, &err);
		return;
	}
	peer->greeted = true;
	result = json_object_new_object();
	if (result) {
		message_add_number(result, "protocol", MESSAGE_PROTOCOL);
		message_add_text(result, "version", PLOOP_VERSION);
		message_add_text(result, "device", peer->server->name);
	}
	server_answer(peer, result);
}

/* One request came in. */
static void peer_handle(struct server_peer *peer, struct json_object *request)
{
	struct ploop_error err;
	const char *verb;
	int r;

	peer->request = request;
	peer->id = 0;
	peer->state = PEER_BUSY;
	r = message_number(request, "id", INT64_MAX, &peer->id, &err);
	if (r == 0)
		r = message_need_text(request, "verb", &verb, &err);
	if (r < 0) {
		server_refuse(peer, &err);
	} else if (!strcmp(verb, "hello")) {
		greet(peer, request);
	} else if (!peer->greeted) {
		error_set(&err, -EPROTO, PLOOP_EXIT_PROTOCOL, "%s: say hello first", peer->server->name);
		server_refuse(peer, &err);
	} else {
		peer->server->handler(peer->server->data, peer, verb, request);
	}
}

/* Takes the next request from the buffer, or waits for one. */
static void peer_next(struct loop_task *task)
{
	struct server_peer *peer = container_of(task, struct server_peer, next);
	struct json_object *request;
	int r;

	if (peer->server->shut) {
		peer_free(peer);
		return;
	}
	r = message_take(&peer->in, &request);
	if (r > 0)
		peer_handle(peer, request);
	else if (r == 0)
		peer_watch(peer, POLLIN);
	else
		peer_free(peer); /* what follows a line that is no message cannot be trusted */
}

static void peer_ready(struct loop_watch *watch, int revents)
{
	struct server_peer *peer = container_of(watch, struct server_peer, watch);
	ssize_t n;

	if (revents < 0) {
		peer_free(peer);
		return;
	}
	if (peer->state == PEER_WRITING) {
		peer_flush(peer);
		return;
	}
	n = message_fill(&peer->in, watch->fd);
	if (n > 0 || n == -EAGAIN)
		peer_next(&peer->next);
	else
		peer_free(peer);
}

static void add_peer(struct server *server, int fd)
{
	struct server_peer *peer;

	if (server->npeers == PEERS || socket_check_peer(fd) < 0 || !(peer = calloc(1, sizeof(*peer)))) {
		close(fd);
		return;
	}
	peer->server = server;
	peer->watch.fd = fd;
	peer->watch.ready = peer_ready;
	peer->next.run = peer_next;
	list_push_back(&server->peers, &peer->node);
	server->npeers++;
	peer_next(&peer->next);
}

static void listen_ready(struct loop_watch *watch, int revents)
{
	struct server *server = container_of(watch, struct server, watch);
	int fd;

	(void)revents;
	while ((fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0)
		add_peer(server, fd);
	if (!server->shut && loop_watch_add(server->loop, watch) < 0)
		log_error("%s: the control socket is lost", server->name);
}

int server_new(struct loop *loop, const char *name, server_handler handler, void *data, struct server **ret,
	       struct ploop_error *err)
{
	struct server *server = calloc(1, sizeof(*server));
	int r = -ENOMEM;

	if (server)
		server->name = strdup(name);
	if (!server || !server->name) {
		free(server);
		return error_sys(err, r, PLOOP_EXIT_MALLOC, "%s", name);
	}
	server->loop = loop;
	server->handler = handler;
	server->data = data;
	server->watch = (struct loop_watch){ .fd = -EBADF, .events = POLLIN, .ready = listen_ready };
	list_init(&server->peers);
	r = socket_listen(name, &server->watch.fd, err);
	if (r == 0) {
		r = loop_watch_add(loop, &server->watch);
		if (r < 0)
			error_sys(err, r, PLOOP_EXIT_SYS, "%s: control socket", name);
	}
	if (r < 0) {
		server_free(server);
		return r;
	}
	*ret = server;
	return 0;
}

void server_shut(struct server *server)
{
	server->shut = true;
	if (server->watch.armed)
		loop_watch_remove(server->loop, &server->watch);
	if (server->watch.fd >= 0)
		close(take_fd(&server->watch.fd));
	list_for_each_safe (node, &server->peers) {
		struct server_peer *peer = container_of(node, struct server_peer, node);

		if (peer->state == PEER_READING)
			peer_free(peer);
	}
}

void server_free(struct server *server)
{
	if (!server)
		return;
	server_shut(server);
	list_for_each_safe (node, &server->peers)
		peer_free(container_of(node, struct server_peer, node));
	free(server->name);
	free(server);
}
