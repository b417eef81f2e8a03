/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * merge.h - levels are merged while the device is used: the daemon's half, one at a time.
 *
 * A client asks for a range, and then how far it is. The merge is the device's, not the client's: it goes on when the client
 * dies. It goes in steps, from below: levels of one size each, as `low` becomes as large as what comes into it, and no level may be
 * smaller than those below it; and the top alone, at the end.
 *
 * Order of writes:
 *  1. device_merge() for the levels below the top; its invariants are in device/merge.c.
 *  2. The images of these levels are emptied, the lowest first, each durably before the next: their data is in the lowest level,
 *     and so whatever names the files as they were before still names the same disk, now and after all that comes.
 *  3. device_merge() for the top, which leaves its image empty.
 *  4. After each step state.json tells of the new stack.
 */
#ifndef DAEMON_MERGE_H
#define DAEMON_MERGE_H

#include <stdbool.h>
#include <stdint.h>

#include <ploop/ploop.h>

#include "base/list.h"

struct daemon;
struct io_file;
struct json_object;
struct server_peer;

struct merge_job {
	enum ploop_merge_state state;
	unsigned low, high; /* as asked for */
	unsigned left;      /* levels above `low` that are still to be merged, the top included */
	unsigned step_high; /* of the step that is under way: low + 1 .. step_high are merged */
	bool top;           /* the step is that of the top */
	bool with_top;      /* the range ends with the top */
	bool held;          /* the top's merge was stopped half-way: both files are written to */
	uint64_t bytes_a_second;
	uint64_t done, total; /* of the last step, when it is over */
	struct io_file *file; /* of the low level, open for writing */
	struct ploop_error error;
};

/* Is one under way? Nothing else may change the stack then. */
bool merge_active(const struct daemon *daemon);

/* {"low":0,"high":2,"images":[the files of these levels, as the client knows them],"rate":0} */
void daemon_merge(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments);
void daemon_merge_status(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments);
/* {"paused":true} */
void daemon_merge_pause(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments);
/* Answers at once; the status says when it has stopped. */
void daemon_merge_stop(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments);

#endif
