/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * rundir.h - where ploop and ploopd find each other.
 *
 *	/run/ploop/lock             held while a name is chosen
 *	/run/ploop/ploop0/          0700; one for each device, dead or alive
 *		pid                 "PID START", START from /proc/PID/stat, so that a pid used again is seen; two lines where the
 *		                    device has a keeper (daemon/keeper.h): the keeper's first
 *		state.json          what is served and how, see state.h
 *		control             the socket
 *
 * A run directory appears with its pid in it and disappears as a whole, each by one rename: who lists never sees half of one.
 * The environment variable PLOOP_RUN_DIR moves /run/ploop, PLOOP_DEV_DIR moves /dev for the names of our own.
 */
#ifndef CONTROL_RUNDIR_H
#define CONTROL_RUNDIR_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct ploop_error;

#define RUNDIR_NAME 16 /* "ploop", up to 7 digits, NUL */
#define RUNDIR_NUMBERS 1048576u

const char *rundir_base(void);
const char *rundir_dev(void);

/* "ploop" and a number without leading zeros. */
bool rundir_name_ok(const char *name);
unsigned rundir_number(const char *name);

/* Takes the name out of "/dev/ploop0", "/dev/ploop0p1", "ploop0". -EINVAL when it is none. */
int rundir_name_of(const char *device, char ret[RUNDIR_NAME]);

/* Makes the folder of all run directories. */
int rundir_prepare(struct ploop_error *err);

/* The path of `file` of a device, "" for the directory itself. */
int rundir_path(const char *name, const char *file, char ret[PATH_MAX]);

/* Takes the name `wanted`, or the lowest free one when it is NULL, for the calling process. */
int rundir_claim(const char *wanted, char ret[RUNDIR_NAME], struct ploop_error *err);

/* Says whose the device is from now on: `engine`, and `keeper` (0: nobody keeps it). */
int rundir_own(const char *name, pid_t keeper, pid_t engine);

/* The name that rundir_claim(NULL) would take now. */
int rundir_next(char ret[RUNDIR_NAME], struct ploop_error *err);

/* Gives a name back: nodes, then directory. Not an error when it is gone. */
int rundir_remove(const char *name);

/* The process that has the device, which is its keeper if it has one; 0 when it is dead. */
pid_t rundir_pid(const char *name);
/* The process that serves it; 0: none, now. */
pid_t rundir_engine(const char *name);

/* All names in use, by number. The caller frees. */
int rundir_list(char (**ret)[RUNDIR_NAME], size_t *ret_n, struct ploop_error *err);

/* Replaces a small file of the device in one step. */
int rundir_write(const char *name, const char *file, const char *text, size_t len);

#endif
