/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * uevent.h - the kernel tells when partitions of our device come and go, so that their names do: there need not be a udev, and
 * if there is one it does not know our names.
 */
#ifndef DAEMON_UEVENT_H
#define DAEMON_UEVENT_H

#include "io/loop.h"

struct uevents {
	struct loop *loop;
	struct loop_watch watch;
	const char *name; /* "ploop0" */
	const char *node; /* "/dev/loop3" */
};

/* Starts to listen. Where that is not allowed the names stay as they were made; the log says so. */
void uevents_start(struct uevents *uevents, struct loop *loop, const char *name, const char *node);
void uevents_stop(struct uevents *uevents);

#endif
