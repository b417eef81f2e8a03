/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* starter.c - the first exchange. */
#include "daemon/starter.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/list.h"
#include "control/open.h"

int starter_read(struct starter *starter, struct open_request *ret, struct ploop_error *err)
{
	_message_ struct json_object *message = NULL;
	ssize_t n;
	int r;

	while ((r = message_take(&starter->buffer, &message)) == 0) {
		n = message_fill(&starter->buffer, starter->in);
		if (n < 0)
			return error_sys(err, (int)n, PLOOP_EXIT_PROTOCOL, "cannot read the request");
		if (n == 0)
			return error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL,
					 "no request on standard input; ploopd is started by `ploop mount`");
	}
	if (r < 0)
		return error_set(err, r, PLOOP_EXIT_PROTOCOL, "the request is not a JSON object on one line");
	return open_request_parse(message, ret, err);
}

static void end(struct starter *starter, bool keep)
{
	/* First, as who waits for the end of the connection takes it for done. */
	starter->ended(starter, keep);
	starter_close(starter);
}

static void wait_for_keep(struct starter *starter)
{
	if (loop_watch_add(starter->loop, &starter->watch) < 0)
		end(starter, false);
}

static void ready(struct loop_watch *watch, int revents)
{
	struct starter *starter = container_of(watch, struct starter, watch);
	struct json_object *message;
	const char *verb = NULL;
	ssize_t n;
	int r;

	(void)revents;
	n = message_fill(&starter->buffer, starter->in);
	r = n > 0 ? message_take(&starter->buffer, &message) : -1;
	if (n > 0 && r == 0) {
		wait_for_keep(starter);
		return;
	}
	if (r > 0) {
		bool keep = message_text(message, "verb", &verb, NULL) == 0 && verb && !strcmp(verb, "keep");

		json_object_put(message);
		end(starter, keep);
		return;
	}
	end(starter, false);
}

int starter_answer(struct starter *starter, struct loop *loop, struct json_object *result)
{
	_message_ struct json_object *answer = message_answer(0, result);
	int r;

	r = answer ? message_write(starter->out, answer) : -ENOMEM;
	if (r < 0)
		return r;
	starter->loop = loop;
	if (starter->keep) {
		end(starter, true);
		return 0;
	}
	starter->watch = (struct loop_watch){ .fd = starter->in, .events = POLLIN, .ready = ready };
	wait_for_keep(starter);
	return 0;
}

void starter_refuse(struct starter *starter, const struct ploop_error *error)
{
	_message_ struct json_object *answer = message_refusal(0, error);

	if (answer && starter->out >= 0)
		(void)message_write(starter->out, answer); /* if it does not listen any more, nobody does */
	starter_close(starter);
}

void starter_close(struct starter *starter)
{
	if (starter->watch.armed)
		loop_watch_remove(starter->loop, &starter->watch);
	if (starter->out >= 0 && starter->out != starter->in)
		close(starter->out);
	if (starter->in >= 0)
		close(starter->in);
	starter->in = starter->out = -EBADF;
	message_buffer_free(&starter->buffer);
}
