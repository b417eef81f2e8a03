/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * verb.h - a verb of the command line: one const table in one file.
 *
 * The table drives everything: the parsing of options, `ploop help VERB`, the summary, shell completion, and the checks
 * that the manual page knows each option. A run function looks like this:
 *
 *	static int run(struct call *call)
 *	{
 *		int c;
 *
 *		while ((c = call_option(call)) != CALL_END) {
 *			switch (c) {
 *			case 's': size = call->value; break;
 *			case OPTION_JSON: json = true; break;
 *			default: return PLOOP_EXIT_PARAM; // CALL_BAD: already reported
 *			}
 *		}
 *		if (call->noperands != 1)
 *			return call_usage(call, "give one DELTA");
 *		...
 *		if (ploop_something(call->operands[0], &err) < 0)
 *			return report_error(&err);
 *		return PLOOP_EXIT_OK;
 *	}
 *
 * What a verb was asked for it prints with printf(); what it does meanwhile it tells with log_info(), which `-v`
 * governs.
 */
#ifndef CLI_VERB_H
#define CLI_VERB_H

#include <stdbool.h>

struct call;

/* One option. The list of a verb ends with an entry whose `code` is 0. */
struct verb_option {
	int code;         /* the letter, or a number >= OPTION_OWN for a long option without one */
	const char *name; /* long name without dashes; NULL when there is only the letter */
	/*
	 * What the argument is called; NULL when the option takes none. Completion goes by it: FILE, DIR, DEVICE, UUID,
	 * DESCRIPTOR, or the words themselves, "raw|ploop1". Anything else (SIZE, N) is not completed.
	 */
	const char *arg;
	const char *help; /* one line; NULL: accepted for old scripts, not shown */
};

enum {
	OPTION_JSON = 0x100,
	OPTION_PROGRESS,
	OPTION_OWN = 0x200, /* the first number that a verb may use for its own long options */
};

/* Options that many verbs have, with the same words everywhere. */
/* clang-format off */
#define VERB_OPTION_JSON { OPTION_JSON, "json", NULL, "print the result as JSON, sizes in bytes" }
#define VERB_OPTION_PROGRESS { OPTION_PROGRESS, "progress", "auto|json|none", "progress on standard error" }
/* clang-format on */

enum verb_flags {
	VERB_BARE = 1, /* means something without any argument; others then print their usage */
};

struct verb {
	const char *name;
	const char *alias;   /* a second name, or NULL */
	const char *group;   /* heading in the summary, the same words as above its section in verbs.c */
	const char *summary; /* one line, lower case, no full stop */
	/* What follows the verb's name; several forms are lines of their own, with \n between them. */
	const char *synopsis;
	const char *details;               /* a few lines below the options, each ending in \n, or NULL */
	const struct verb_option *options; /* NULL: none */
	unsigned flags;
	int (*run)(struct call *call); /* returns the exit status */
};

/* All verbs in the order of the summary, NULL-terminated. */
extern const struct verb *const verbs[];

const struct verb *verb_find(const char *name);

#endif
