/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* compact-run.h - asks a running ploopd to make an image shorter, and waits until it has. */
#ifndef LIB_COMPACT_RUN_H
#define LIB_COMPACT_RUN_H

#include <stdint.h>

#include <ploop/ploop.h>

struct control_client;

struct compact_run {
	struct control_client *client;
	const char *image;       /* as the device calls it */
	uint64_t target;         /* bytes: enough when it is no longer; 0: as short as it goes */
	uint64_t bytes_a_second; /* 0: as fast as it goes */
	ploop_progress_fn progress;
	void *progress_data;
	uint64_t truncated; /* result: bytes by which it became shorter, also when it failed */
};

/* -ECANCELED when `progress` asked for it. */
int compact_run(struct compact_run *run, struct ploop_error *err);

/* Waits for one that somebody else began, and who may be dead. How it ended is not our affair. */
int compact_wait(struct compact_run *run, struct ploop_error *err);

#endif
