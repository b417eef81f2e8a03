/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* replace.h - another file of the same content for a level of the device: the daemon's half of `ploop replace`. */
#ifndef DAEMON_REPLACE_H
#define DAEMON_REPLACE_H

#include <stdbool.h>

#include "format/format.h"

struct daemon;
struct dir;
struct json_object;
struct server_peer;

struct replace_job {
	struct server_peer *peer; /* who asked; NULL: nothing is under way */
	unsigned level;
	struct delta delta; /* the new one */
	int lock;
	char *path;         /* by which it is known afterwards */
	struct dir *folder; /* where a name changes at the turn; NULL: none does */
	char *from, *to;
};

bool replace_active(const struct daemon *daemon);

void daemon_replace(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments);

#endif
