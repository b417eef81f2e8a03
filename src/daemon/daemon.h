/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * daemon.h - one ploopd: one device from its image files to its node in /dev.
 *
 *	             daemon_start()              export started            "keep"
 *	  (nothing) ----------------> OPENING ------------------> SERVING --------> SERVING, on its own
 *	                                 |                          |  ^
 *	                          failed |           daemon_stop()  |  | somebody has it open
 *	                                 v                          v  |
 *	  exit <------ CLOSED <------ CLOSING <-------------------- STOPPING
 *
 * Up, in this order: name and run directory, image files (and their locks), device, front end, nodes, state.json, control
 * socket, answer to the starter. Down, in this order: front end (the last that may say "in use"), control socket, device
 * (which makes everything durable), image files, nodes and run directory, answer to who asked, exit.
 *
 * Until the starter says "keep" the device is its: if it dies before, the device goes too. From then on it has a keeper (keeper.h),
 * and should we die, another engine takes over: succeed.c is its way up.
 */
#ifndef DAEMON_DAEMON_H
#define DAEMON_DAEMON_H

#include <stdbool.h>

#include <ploop/ploop.h>

#include "control/open.h"
#include "control/rundir.h"
#include "control/state.h"
#include "daemon/balloon.h"
#include "daemon/compact.h"
#include "daemon/grow.h"
#include "daemon/maintenance.h"
#include "daemon/merge.h"
#include "daemon/replace.h"
#include "daemon/server.h"
#include "daemon/starter.h"
#include "daemon/track.h"
#include "daemon/uevent.h"
#include "device/device.h"
#include "io/loop.h"

struct export;
struct stack;

enum daemon_phase {
	DAEMON_OPENING,
	DAEMON_SERVING,
	DAEMON_LEAVING,  /* another engine comes: see upgrade.c */
	DAEMON_STOPPING, /* the front end is asked whether it can go */
	DAEMON_CLOSING,
	DAEMON_CLOSED,
};

/* A client has asked the device to settle. */
struct settle_job {
	struct device_settle settle;
	struct loop_timer timer; /* ends the hold */
	bool held, running, wanted;
	int result;
};

struct daemon {
	enum daemon_phase phase;
	int refuge; /* see self_find_root() */
	struct loop *loop;
	int keeper;     /* the socket to it; negative: there is none */
	bool kept;      /* the device is wanted: should we die, another engine takes over */
	struct loop_watch keeper_gone;
	struct shadow *shadow; /* what is answered; NULL without a keeper */
	struct open_request request;
	char name[RUNDIR_NAME];
	bool named;
	int disk_lock; /* while the disk is opened by its descriptor: nobody else changes that */
	struct stack *stack;
	struct device *device;
	struct export *export;
	struct device_state state;
	struct server *server;
	struct starter starter;
	struct uevents uevents;

	struct server_peer *pusher;  /* who asked for a new top that is on its way; NULL: nobody */
	struct merge_job merge;
	struct grow_job grow;
	struct settle_job settle;
	struct balloon_job balloon;
	struct compact_job compact;
	struct track_job track;
	struct replace_job replace;
	struct server_peer *stopper; /* who asked us to stop and waits for the answer */
	bool stop_when_idle;         /* somebody wants us gone as soon as nobody has the device open */
	struct loop_timer idle_timer;
	struct loop_task failed_task;
	struct ploop_error failure; /* code 0: none. What the process ends with */
};

/* Starts; the answer goes to the starter when it is known. The loop must run afterwards in any case. */
void daemon_start(struct daemon *daemon);

/* For those who take a device over: succeed.h. */
int daemon_open_device(struct daemon *daemon, struct ploop_error *err);
struct export_config;
void daemon_export_config(struct daemon *daemon, struct export_config *ret);

/* The state has changed: for all to see, and for the next engine. */
void daemon_save(struct daemon *daemon);

/* Stops when nobody has the device open; `force`: in any case. `peer` (may be NULL) gets the answer, when it is known. */
void daemon_stop(struct daemon *daemon, bool force, struct server_peer *peer);

/* Stops now, or as soon as nobody has the device open. */
void daemon_stop_when_idle(struct daemon *daemon);

/* Makes the image that `arguments` name the new top; answers `peer` when the old top is closed. */
void daemon_push_check(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments);
void daemon_push(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments);

/* Fills in what was written in part, and holds that; daemon_unsettle() ends the hold. */
void daemon_settle(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments);
void daemon_unsettle(struct daemon *daemon);

/* Handles one request of a client. */
void daemon_request(void *data, struct server_peer *peer, const char *verb, struct json_object *arguments);

#endif
