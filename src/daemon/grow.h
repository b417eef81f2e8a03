/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * grow.h - the device becomes larger while it is used. It goes on when the client dies.
 *
 * Order:
 *  1. device_resize(): its invariants are in device/resize.c.
 *  2. The front end tells the kernel.
 *  3. state.json says it, and the client is answered.
 * What was cut off in between is finished by growing again, also to the size that the image has already.
 */
#ifndef DAEMON_GROW_H
#define DAEMON_GROW_H

#include <stdbool.h>
#include <stdint.h>

struct daemon;
struct json_object;
struct server_peer;

struct grow_job {
	struct server_peer *peer; /* who asked; NULL: it is not under way */
	bool telling;             /* the kernel */

	/* A front end is not stopped while it tells: then is. */
	bool stop, stop_force;
	struct server_peer *stopper;
};

bool grow_active(const struct daemon *daemon);

/* {"size":34359738368}: bytes, rounded to whole clusters. Answers the same with the size that it has then. */
void daemon_grow(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments);

/* Whether daemon_stop() must wait; it is called again then. */
bool grow_holds_stop(struct daemon *daemon, bool force, struct server_peer *peer);

#endif
