/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * balloon.h - the daemon's half of ballooning. A client changes the balloon, which is a file inside; meanwhile nobody else does,
 * and no other maintenance begins. What the balloon covers is free in the eyes of the device: the client says where that is,
 * and it is released.
 *
 * All of this is the client's: it ends when its connection does, also because it died. What was released stays so.
 */
#ifndef DAEMON_BALLOON_H
#define DAEMON_BALLOON_H

#include <stdbool.h>
#include <stdint.h>

#include <ploop/ploop.h>

#include "base/range.h"
#include "device/device.h"
#include "io/loop.h"

struct daemon;
struct json_object;
struct server_peer;

struct balloon_job {
	struct server_peer *holder; /* who changes the balloon; NULL: nobody */

	/* A release that is under way. */
	struct server_peer *asker; /* NULL: none is */
	struct ranges ranges;      /* whole clusters of the disk */
	size_t range;              /* that one is under way */
	uint32_t next, end;        /* virtual clusters of it that are left */
	uint64_t released;         /* clusters of the file */
	int result;
	bool flushing;
	struct device_request request;
	struct loop_task task;
};

/* OFF, BALLOON (somebody changes it), FBLOADED (what it covers is being released). */
enum ploop_maintenance balloon_state(const struct daemon *daemon);

/*
 * Takes the balloon for as long as the client is connected. {"deflate":true}: it will only become smaller, which is no
 * maintenance and goes on beside it.
 */
void daemon_balloon(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments);

/* {"ranges":[offset,length,...]}: how many clusters a release would give back, {"clusters":5}. Anybody may ask. */
void daemon_balloon_count(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments);

/* The same, and they are given back, durably. Only for who has the balloon. */
void daemon_balloon_release(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments);

#endif
