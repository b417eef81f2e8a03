/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * track.h - the device is copied by a client, which asks what to read: the daemon's half, one copy at a time.
 *
 * The client reads the image files itself. It starts the tracker, which begins with notes on all that there is; takes notes, a
 * page of them at a time, each with the place where its bytes are now; and reads. When little is left it makes the device
 * stand still, and takes and reads the rest. All of it is the client's: when its connection ends, by whatever death, the notes
 * go and the device goes on. A device that stood still for too long goes on, too, and the client's next question fails.
 */
#ifndef DAEMON_TRACK_H
#define DAEMON_TRACK_H

#include <stdbool.h>

#include "device/cbt.h"
#include "device/tracker.h"
#include "io/loop.h"

struct daemon;
struct json_object;
struct server_peer;

struct track_job {
	struct device_track *track; /* NULL: nobody copies */
	struct tracker tracker;
	struct server_peer *owner;
	bool flat;    /* all levels as one; else the top alone */
	bool waiting; /* the owner waits until the device stands still */
	bool late;    /* it stood still for too long */
	struct loop_timer timer;
	bool period; /* a backup has begun its bitmap, and not committed it: see cbt.h */
	uint8_t id[CBT_ID];
};

/* Whether the peer is the one who copies. Refuses it, if not. */
bool track_check_owner(struct daemon *daemon, struct server_peer *peer);

/* {"flat":false}; answers with the shape of what is copied. With "since" it is only what has changed in the dirty bitmap with this id.
 */
void daemon_track(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments);
/* {"from":0}: {"runs":[offset, length, level, file offset, ...],"next":N,"dirty":N}; level -1: nowhere. No "next": that was all. */
void daemon_track_take(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments);
/* {"clusters":[offset, ...]}: they count as changed. */
void daemon_track_mark(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments);
/* {"seconds":60}: answers when the device stands still, which it does for so long at most. */
void daemon_track_hold(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments);
/* Answers with {"late":true} when it went on before that. */
void daemon_track_release(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments);
void daemon_track_end(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments);

#endif
