/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* help.c - `ploop help`: all of it comes from the verb tables. --table feeds shell completion and the checks. */
#include "cli/help.h"

#include <stdbool.h>
#include <string.h>

#include "cli/call.h"
#include "cli/verbs.h"

enum {
	OPTION_TABLE = OPTION_OWN,
};

void help_summary(FILE *out)
{
	const char *group = "";

	fprintf(out, "Usage: ploop [-v | -vN] VERB [ARGUMENTS]\n"
		     "       ploop help VERB\n");
	for (const struct verb *const *v = verbs; *v; v++) {
		if (strcmp(group, (*v)->group)) {
			group = (*v)->group;
			fprintf(out, "\n%s:\n", group);
		}
		fprintf(out, "  %-20s %s\n", (*v)->name, (*v)->summary);
	}
	fprintf(out,
		"\n  -v says more, -v0 less, -v-1 errors only, -v-2 nothing; -v4 adds the time. The default is -v3.\n");
}

/* One option a line: letter, long name, argument; "-" for what is not there. Options without help are left out. */
static void print_table(const struct verb *verb)
{
	for (const struct verb_option *o = verb->options; o && o->code; o++) {
		char letter[2] = { o->code < OPTION_JSON ? (char)o->code : '-', 0 };

		if (o->help)
			printf("%s\t%s\t%s\n", letter, o->name ? o->name : "-", o->arg ? o->arg : "-");
	}
}

static int print_verb(const struct call *call, const char *name, bool table)
{
	const struct verb *verb = verb_find(name);

	if (!verb)
		return call_usage(call, "there is no verb %s", name);
	if (table)
		print_table(verb);
	else
		call_print_usage(verb, stdout);
	return PLOOP_EXIT_OK;
}

static int run(struct call *call)
{
	bool table = false;
	int c;

	while ((c = call_option(call)) != CALL_END) {
		if (c != OPTION_TABLE)
			return PLOOP_EXIT_PARAM;
		table = true;
	}
	if (call->noperands > 1)
		return call_usage(call, "name one verb");
	if (call->noperands == 1)
		return print_verb(call, call->operands[0], table);
	if (table) {
		for (const struct verb *const *v = verbs; *v; v++)
			printf("%s\t%s\t%s\n", (*v)->name, (*v)->flags & VERB_BARE ? "bare" : "-", (*v)->summary);
	} else {
		help_summary(stdout);
	}
	return PLOOP_EXIT_OK;
}

static const struct verb_option options[] = {
	{ OPTION_TABLE, "table", NULL, "verbs, or the options of VERB, for programs: one a line, tabs between" },
	{ 0 },
};

const struct verb verb_help = {
	.name = "help",
	.group = "About",
	.summary = "say what ploop can do, or how a verb is used",
	.synopsis = "[--table] [VERB]",
	.options = options,
	.flags = VERB_BARE,
	.run = run,
};
