/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* client.c - the asking side of the control socket. */
#include "control/client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "control/message.h"
#include "control/rundir.h"
#include "control/socket.h"

#define RETRIES 100
#define RETRY_MS 20

struct control_client {
	int fd;
	uint64_t id;
	char name[RUNDIR_NAME];
	struct message_buffer buffer;
};

static int lost(struct control_client *client, int code, struct ploop_error *err)
{
	if (code == -EAGAIN)
		return error_set(err, -ETIMEDOUT, PLOOP_EXIT_PROTOCOL, "%s: ploopd does not answer in time",
				 client->name);
	return error_sys(err, code, PLOOP_EXIT_PROTOCOL, "%s: lost ploopd", client->name);
}

/* The next answer; others than that to our last request do not come. */
static int receive(struct control_client *client, struct json_object **ret, struct ploop_error *err)
{
	struct json_object *answer;
	uint64_t id;
	ssize_t n;
	int r;

	while ((r = message_take(&client->buffer, &answer)) == 0) {
		n = message_fill(&client->buffer, client->fd);
		if (n <= 0)
			return lost(client, n ? (int)n : -ECONNRESET, err);
	}
	if (r < 0)
		return lost(client, r, err);
	r = message_number(answer, "id", UINT64_MAX, &id, err);
	if (r == 0 && id != client->id)
		r = error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "%s: an answer that nobody asked for", client->name);
	if (r < 0) {
		json_object_put(answer);
		return r;
	}
	*ret = answer;
	return 0;
}

static int send_all(int fd, const char *line, size_t len)
{
	while (len) {
		ssize_t n = send(fd, line, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		line += n;
		len -= (size_t)n;
	}
	return 0;
}

static int ask(struct control_client *client, const char *verb, struct json_object *message, struct json_object **ret,
	       struct ploop_error *err)
{
	_message_ struct json_object *answer = NULL;
	struct json_object *result = NULL;
	_free_ char *line = NULL;
	size_t len;
	int r;

	message_add_number(message, "id", ++client->id);
	message_add_text(message, "verb", verb);
	r = message_print(message, &line, &len);
	if (r == 0)
		r = send_all(client->fd, line, len);
	if (r < 0)
		return lost(client, r, err);
	r = receive(client, &answer, err);
	if (r == 0)
		r = message_result(answer, &result, err);
	if (r == 0 && ret)
		*ret = json_object_get(result);
	return r;
}

int control_call(struct control_client *client, const char *verb, struct json_object *arguments,
		 struct json_object **ret, struct ploop_error *err)
{
	_message_ struct json_object *message = arguments ? arguments : json_object_new_object();

	if (!message)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", client->name);
	return ask(client, verb, message, ret, err);
}

static int try_connect(const char *name, unsigned timeout_ms, struct control_client **ret, struct ploop_error *err)
{
	_client_ struct control_client *client = calloc(1, sizeof(*client));
	struct json_object *hello;
	int r;

	if (!client)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", name);
	client->fd = -EBADF;
	snprintf(client->name, sizeof(client->name), "%s", name);
	r = socket_connect(name, timeout_ms, &client->fd, err);
	if (r < 0)
		return r;
	hello = json_object_new_object();
	message_add_number(hello, "protocol", MESSAGE_PROTOCOL);
	r = control_call(client, "hello", hello, NULL, err);
	if (r < 0)
		return r;
	*ret = take_ptr(client);
	return 0;
}

/* Nobody listens, though the device is there: another engine is about to take over. */
static bool is_between(const char *name, int r)
{
	return (r == -ECONNREFUSED || r == -ECONNRESET) && rundir_pid(name);
}

int control_connect(const char *name, unsigned timeout_ms, struct control_client **ret, struct ploop_error *err)
{
	const struct timespec pause = { .tv_nsec = RETRY_MS * 1000000L };
	int r = try_connect(name, timeout_ms, ret, err);

	for (unsigned i = 0; i < RETRIES && is_between(name, r); i++) {
		nanosleep(&pause, NULL);
		r = try_connect(name, timeout_ms, ret, err);
	}
	return r;
}

void control_close(struct control_client *client)
{
	if (!client)
		return;
	if (client->fd >= 0)
		close(client->fd);
	message_buffer_free(&client->buffer);
	free(client);
}

int control_ask(const char *name, const char *verb, struct json_object *arguments, struct json_object **ret,
		struct ploop_error *err)
{
	_client_ struct control_client *client = NULL;
	int r;

	r = control_connect(name, CONTROL_TIMEOUT_MS, &client, err);
	if (r < 0) {
		json_object_put(arguments);
		return r;
	}
	return control_call(client, verb, arguments, ret, err);
}
