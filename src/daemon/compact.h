/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * compact.h - an image becomes shorter while the device is used: the daemon's half, one at a time. Like a merge it is the device's:
 * it goes on when the client that asked for it dies, and ends by itself.
 */
#ifndef DAEMON_COMPACT_H
#define DAEMON_COMPACT_H

#include <stdbool.h>
#include <stdint.h>

#include <ploop/ploop.h>

struct daemon;
struct io_file;
struct json_object;
struct server_peer;

struct compact_job {
	bool running;
	unsigned level;
	uint64_t before, after;   /* bytes that the file was long, and is; when it is over */
	uint64_t done, total;     /* bytes to be moved */
	struct io_file *file;     /* of a level below the top, open for writing */
	struct ploop_error error; /* code 0: the last one went well */
};

bool compact_active(const struct daemon *daemon);

/* {"image":"/a/delta","target":0,"rate":0}: see device_compact(). `image` says which level. */
void daemon_compact(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments);
/* {"running":true,"done":5,"total":10}, and when it is over {"running":false,"before":30,"after":20}, and perhaps an error */
void daemon_compact_status(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments);
/* Answers at once; the status says when it has stopped. */
void daemon_compact_stop(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments);

#endif
