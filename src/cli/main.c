/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* main.c - ploop [-v..] VERB ...: the leading options, then the verb's own function, or a program ploop-VERB. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <ploop/ploop.h>

#include "base/log.h"
#include "cli/call.h"
#include "cli/help.h"
#include "cli/helper.h"
#include "cli/report.h"

#define VERBOSITY_DEFAULT 3

/* "-v" and "-vvv" add to the verbosity, "-v5" and "-v-1" set it. */
static bool read_verbosity(const char *option, int *verbosity)
{
	char *end;
	long level;

	if (option[0] != '-' || option[1] != 'v')
		return false;
	option += 2;
	if (option[strspn(option, "v")] == '\0') {
		*verbosity += 1 + (int)strlen(option);
		return true;
	}
	level = strtol(option, &end, 10);
	if (*end || level < -9 || level > 99)
		return false;
	*verbosity = (int)level;
	return true;
}

/* What we do not know may be a program of the host's: `ploop cbt` is ploop-cbt. */
static int run_program(char **argv)
{
	char name[256];

	if (strchr(argv[0], '/') || (size_t)snprintf(name, sizeof(name), "ploop-%s", argv[0]) >= sizeof(name))
		errno = ENOENT;
	else
		execvp(name, argv);
	if (errno != ENOENT) {
		log_error("%s: %s", name, strerror(errno));
	} else {
		/* The summary is long: what is wrong stands below it. */
		help_summary(stderr);
		log_error("\nploop: there is no verb %s, and no program %s", argv[0], name);
	}
	return PLOOP_EXIT_PARAM;
}

/* What was printed must have reached its place: a full disk is a failure too. */
static int finish(int status)
{
	if ((fflush(stdout) || ferror(stdout)) && !status) {
		log_error("standard output: %s", strerror(errno));
		return PLOOP_EXIT_WRITE;
	}
	return status;
}

/* Called by the name ploop-VERB? */
static const struct verb *named_verb(const char *program)
{
	const char *slash = strrchr(program, '/');
	const char *name = slash ? slash + 1 : program;

	return strncmp(name, "ploop-", 6) ? NULL : verb_find(name + 6);
}

int main(int argc, char **argv)
{
	int verbosity = VERBOSITY_DEFAULT;
	const struct verb *verb;
	int i;

	if (helper_main(argc, argv, &i))
		return i;
	report_init(verbosity);
	verb = argc ? named_verb(argv[0]) : NULL;
	if (verb)
		return finish(call_verb(verb, argc, argv));
	for (i = 1; i < argc && argv[i][0] == '-'; i++) {
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			help_summary(stdout);
			return finish(PLOOP_EXIT_OK);
		}
		if (!strcmp(argv[i], "--version")) {
			printf("ploop %s\n", ploop_version());
			return finish(PLOOP_EXIT_OK);
		}
		if (!read_verbosity(argv[i], &verbosity)) {
			log_error("Bad option %s", argv[i]);
			help_summary(stderr);
			return PLOOP_EXIT_PARAM;
		}
	}
	if (i == argc) {
		help_summary(stderr);
		return PLOOP_EXIT_PARAM;
	}
	report_init(verbosity);
	verb = verb_find(argv[i]);
	if (!verb)
		return run_program(argv + i);
	return finish(call_verb(verb, argc - i, argv + i));
}
