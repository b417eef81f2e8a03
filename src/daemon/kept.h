/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * kept.h - all that the next engine must know, in one piece: lines of text in a memfd, and the descriptors that they speak of. The
 * keeper holds the descriptors and does not look at them; each KEEP replaces the one before as a whole, so that no engine ever
 * finds half of a change.
 *
 *	descriptor 0        memfd with three lines of JSON: the request (control/open.h), the state (control/state.h), the rest
 *	descriptor 1        the shadow (device/shadow.h)
 *	...                 the front end's (export/export.h)
 *	...                 the locks of the levels that have one, base first (image/stack.h)
 *
 * The levels are those that the stack has open, which may be one more than the device has: an image that is about to be the top, or
 * is not any more. Which of them is the top the shadow knows.
 */
#ifndef DAEMON_KEPT_H
#define DAEMON_KEPT_H

#include "control/open.h"
#include "control/state.h"
#include "daemon/keeper.h"
#include "device/device.h"
#include "export/export.h"

struct daemon;

struct kept {
	struct open_request request;
	struct device_state state; /* the images are those of the stack */
	char *base_format;
	struct export_kept export;
	int shadow;
	int locks[DEVICE_MAX_LEVELS + 1]; /* of the images; -1: there is none */
};

/* Tells the keeper what to keep, if there is a keeper. What cannot be told is logged: the device works all the same. */
void kept_save(struct daemon *daemon);

/* Takes apart what the keeper had. The descriptors are the caller's. */
int kept_load(const struct keeper_set *set, struct kept *ret, struct ploop_error *err);
void kept_clear(struct kept *kept);

#endif
