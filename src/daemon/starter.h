/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * starter.h - the process that started us: it sent a request (open.h), and waits for one answer. After a good answer it says
 * {"verb":"keep"}; if the connection ends before that, the device is not wanted any more.
 */
#ifndef DAEMON_STARTER_H
#define DAEMON_STARTER_H

#include <stdbool.h>

#include <json-c/json.h>

#include "control/message.h"
#include "io/loop.h"

struct open_request;
struct ploop_error;

struct starter {
	int in, out; /* -EBADF when there is none any more */
	bool keep;   /* needs not say it */
	struct loop *loop;
	struct loop_watch watch;
	struct message_buffer buffer;
	void (*ended)(struct starter *starter, bool keep);
};

/* Reads the request; blocks. */
int starter_read(struct starter *starter, struct open_request *ret, struct ploop_error *err);

/* Gives the good answer, then waits on the loop for `ended`. A negative errno when there is nobody to hear it. */
int starter_answer(struct starter *starter, struct loop *loop, struct json_object *result);

/* Gives the bad answer. */
void starter_refuse(struct starter *starter, const struct ploop_error *error);

void starter_close(struct starter *starter);

#endif
