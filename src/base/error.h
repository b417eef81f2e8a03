/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * error.h - how the control path tells what went wrong.
 *
 * error_set() returns the code, so that setting and returning is one line:
 *	return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "%s: cluster size 0", path);
 * A failure is described once, by the function that knows the file's name. The I/O path carries the bare code.
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <ploop/ploop.h>

/* Fills `err` (which may be NULL). `code` is a negative errno. Returns `code`. */
int error_set(struct ploop_error *err, int code, enum ploop_exit status, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* The same, with ": " and the system's text for `code` appended. */
int error_sys(struct ploop_error *err, int code, enum ploop_exit status, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* Puts "prefix: " before the text that is there. Returns the code in `err`, or `code` when `err` is NULL. */
int error_prefix(struct ploop_error *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
