/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* report.h - what the person at the terminal sees of the library's messages and errors. */
#ifndef CLI_REPORT_H
#define CLI_REPORT_H

#include <ploop/ploop.h>

/*
 * Sends messages up to `verbosity` to standard output, errors to standard error. From 4 on each line has the time before
 * it, "[ss.uuuuuu] ", as scripts know it from the original.
 */
void report_init(int verbosity);

/* From now on all messages go to standard error, as what goes to standard output is for a program to read. */
void report_aside(void);

/* One line on standard error. Returns the exit status for the process, which is never 0. */
int report_error(const struct ploop_error *err);

#endif
