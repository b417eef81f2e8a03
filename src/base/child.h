/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * child.h - runs a helper program (mke2fs, fsck, resize2fs ...) to its end. No shell is involved: arguments are passed as
 * they are. What the program says goes to the log line by line.
 */
#ifndef BASE_CHILD_H
#define BASE_CHILD_H

struct ploop_error;

/* The descriptor that a child finds its file on, and the name it opens it by. */
#define CHILD_FD 3
#define CHILD_FD_PATH "/proc/self/fd/3"

struct child_request {
	const char *const *argv; /* NULL-terminated; argv[0] is looked up in PATH, then in the sbin folders */
	int fd;                  /* handed over as CHILD_FD; -1: none. All others are closed */
	int level;               /* the log level of its output (log.h) */
};

/*
 * Returns 0 when the program was run, with its exit status (128 + the signal's number when one killed it) in *ret_exit; and
 * a negative errno when it could not be run: -ENOENT when there is no such program. `last` (may be NULL) gets the last line
 * it said, for the text of an error.
 */
int child_run(const struct child_request *request, int *ret_exit, char *last, unsigned last_size);

#endif
