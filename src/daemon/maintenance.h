/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * maintenance.h - what is being done to the device besides serving it: one operation at a time, with the names of the original.
 * Nothing is remembered: the state is what runs now, so that none outlives its reason.
 */
#ifndef DAEMON_MAINTENANCE_H
#define DAEMON_MAINTENANCE_H

#include <ploop/ploop.h>

struct daemon;
struct json_object;
struct server_peer;

enum ploop_maintenance maintenance_state(const struct daemon *daemon);

/* 0 when another operation may begin; else -EBUSY, and says what is under way. */
int maintenance_check(const struct daemon *daemon, struct ploop_error *err);

/* The same for `peer`, whom his own balloon does not keep from going on with it. */
int maintenance_check_for(const struct daemon *daemon, const struct server_peer *peer, struct ploop_error *err);

/* {"state":"MERGE"} */
void daemon_maintenance(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments);

#endif
