/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cbt.h - the dirty bitmaps of the device, for clients: what there is, what changed, begin and drop one. A backup begins one as a
 * part of its copy (track.h), while the device stands still; it is the copy's until that is committed.
 */
#ifndef DAEMON_CBT_H
#define DAEMON_CBT_H

#include <stdint.h>

#include "device/cbt.h"

struct daemon;
struct json_object;
struct ploop_error;
struct server_peer;

/* A UUID of 16 bytes from an argument. */
int cbt_take_id(struct json_object *arguments, const char *key, uint8_t ret[CBT_ID], struct ploop_error *err);

/* {"bitmaps":[{"uuid":"..","granularity":N,"dirty":N}],"size":N}: a UUID is 32 hexadecimal digits. */
void daemon_cbt(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments);
/* {"uuid":"..","from":0}: {"runs":[offset, length, ...],"next":N}; no "next": that was all. */
void daemon_cbt_runs(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments);
/* {"uuid":".."}: answers when a crash leaves it so. */
void daemon_cbt_start(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments);
void daemon_cbt_drop(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments);

/* {"uuid":".."}: begins the next bitmap of a backup; the device stands still. At once, and not durable yet. */
void daemon_track_period(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments);
/* Answers when a crash leaves that bitmap. */
void daemon_track_plant(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments);
/* {"since":".."}: the backup is there: its bitmap stays whatever happens to the client, and the one of before is dropped. */
void daemon_track_commit(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments);
/* The copy ends: what it began and did not commit goes. */
void cbt_forget_period(struct daemon *daemon);

#endif
