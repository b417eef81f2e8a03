/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* arg.h - arguments that several verbs read the same way: GUIDs, formats, versions. */
#ifndef CLI_ARG_H
#define CLI_ARG_H

#include <stdbool.h>

#include <ploop/ploop.h>

#define ARG_UUID 39 /* 36 characters, two braces and a NUL */

/* With or without braces; the result has them. */
int arg_uuid(const char *text, char ret[ARG_UUID], struct ploop_error *err);

/* What -f says: "raw", or "ploop1" and its other name "expanded", or "preallocated". */
enum arg_format {
	ARG_FORMAT_PLOOP1,
	ARG_FORMAT_PREALLOCATED,
	ARG_FORMAT_RAW,
};
int arg_format(const char *text, enum arg_format *ret, struct ploop_error *err);

/* 1 or 2. */
int arg_version(const char *text, unsigned *ret, struct ploop_error *err);

#endif
