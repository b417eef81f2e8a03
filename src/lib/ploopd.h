/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ploopd.h - starting a ploopd, and waiting for one to end. */
#ifndef LIB_PLOOPD_H
#define LIB_PLOOPD_H

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

#include "control/open.h"
#include "control/state.h"

struct ploop_error;

/* The program: $PLOOPD, else what lies beside the running program, else where it is installed. */
int find_daemon(char path[PATH_MAX], struct ploop_error *err);

/*
 * Starts a ploopd and waits until its device can be used. *ret_connection says that we still want it: when it is closed
 * before spawn_keep(), also because we died, the device goes.
 */
int spawn_daemon(const struct open_request *request, struct device_state *ret, int *ret_connection,
		 struct ploop_error *err);
int spawn_keep(int connection, struct ploop_error *err);

/*
 * Asks the daemon of `name` to end, and waits until its process is gone. -EBUSY when somebody has the device open. `lazy`: it
 * ends when nobody has; does not wait.
 */
int daemon_end(const char *name, pid_t pid, bool lazy, struct ploop_error *err);

#endif
