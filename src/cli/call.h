/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* call.h - one run of a verb: its arguments taken apart, its usage told. */
#ifndef CLI_CALL_H
#define CLI_CALL_H

#include <getopt.h>
#include <stdio.h>

#include <ploop/ploop.h>

#include "cli/verb.h"

#define CALL_END (-1)
#define CALL_BAD '?'
#define CALL_OPTIONS 48 /* most options a verb can have */

struct call {
	const struct verb *verb;
	int argc;
	char **argv;       /* argv[0] is the verb */
	const char *value; /* of the option that call_option() returned */
	char **operands;   /* valid after CALL_END */
	int noperands;

	char letters[2 * CALL_OPTIONS + 2];
	struct option longs[CALL_OPTIONS + 1];
};

/* Runs `verb`; returns the exit status. */
int call_verb(const struct verb *verb, int argc, char **argv);

/*
 * The next option: its code, CALL_END, or CALL_BAD when it is not one of the verb's (that is reported already).
 * Options may follow operands.
 */
int call_option(struct call *call);

/* Tells what is wrong with the arguments and where to read more. Returns PLOOP_EXIT_PARAM. */
int call_usage(const struct call *call, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same with the text that is in `err`. */
int call_usage_error(const struct call *call, const struct ploop_error *err);

/* Prints the usage of a verb, as `ploop help VERB` does. */
void call_print_usage(const struct verb *verb, FILE *out);

#endif
