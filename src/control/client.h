/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* client.h - asking a running ploopd: blocking, one request after another, with a time limit. */
#ifndef CONTROL_CLIENT_H
#define CONTROL_CLIENT_H

#include <json-c/json.h>

struct control_client;
struct ploop_error;

#define CONTROL_TIMEOUT_MS 30000u

/* Connects to the daemon of `name` ("ploop0") and greets it. */
int control_connect(const char *name, unsigned timeout_ms, struct control_client **ret, struct ploop_error *err);

/*
 * Asks. `arguments` (may be NULL) is used up. The daemon's error comes back as it is. *ret (ret may be NULL) is the result,
 * which the caller puts; NULL when there is none.
 */
int control_call(struct control_client *client, const char *verb, struct json_object *arguments,
		 struct json_object **ret, struct ploop_error *err);

/* NULL is accepted. */
void control_close(struct control_client *client);

/* Connects, asks and closes. */
int control_ask(const char *name, const char *verb, struct json_object *arguments, struct json_object **ret,
		struct ploop_error *err);

static inline void cleanup_client(struct control_client **client)
{
	control_close(*client);
}
#define _client_ __attribute__((cleanup(cleanup_client)))

#endif
