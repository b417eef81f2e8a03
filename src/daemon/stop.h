/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* stop.h - the way down, for the way up that failed. */
#ifndef DAEMON_STOP_H
#define DAEMON_STOP_H

struct daemon;

/* daemon->failure says what went wrong: undoes what there is, tells the starter, ends the loop. */
void stop_failed(struct daemon *daemon);

#endif
