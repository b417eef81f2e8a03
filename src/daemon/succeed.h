/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* succeed.h - an engine that takes the place of another. */
#ifndef DAEMON_SUCCEED_H
#define DAEMON_SUCCEED_H

struct daemon;
struct kept;

/*
 * Takes over what the engine before left. Uses up `kept`. The loop must run afterwards, in any case. A failure ends the process and
 * leaves everything with the keeper, which tries again.
 */
void daemon_succeed(struct daemon *daemon, struct kept *kept);

/* {"program":"/usr/sbin/ploopd"}: hands over to an engine of that program. */
struct json_object;
struct server_peer;
void daemon_upgrade(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments);

/* The keeper: watched, and replaced when it dies. */
void keeper_watch(struct daemon *daemon);

#endif
