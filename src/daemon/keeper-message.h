/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* keeper-message.h - what an engine says to its keeper: one packet each. */
#ifndef DAEMON_KEEPER_MESSAGE_H
#define DAEMON_KEEPER_MESSAGE_H

#include <limits.h>
#include <stdint.h>

#include "daemon/keeper.h"

#define KEEPER_SOCKET 3 /* of a keeper that was another program before */
#define KEEPER_REFUGE 4

enum keeper_kind { KEEPER_KEEP = 1, KEEPER_FORGET, KEEPER_UPGRADE };

struct keeper_message {
	uint32_t kind;
	uint32_t any_time;
	char text[PATH_MAX]; /* KEEP: the device's name; UPGRADE: the program */
};

/* 1, 0 at the end, or a negative errno. Of KEEP the descriptors are in *ret_set, which has none otherwise. */
int keeper_receive(int socket, struct keeper_message *ret, struct keeper_set *ret_set);

#endif
