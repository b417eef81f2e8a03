/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* report.c - the sink of the process's messages. */
#include "cli/report.h"

#include <stdbool.h>
#include <stdio.h>
#include <time.h>

#include "base/log.h"

#define VERBOSITY_TIMES 4

static int report_verbosity;
static bool report_is_aside;

static void report_line(void *data, int level, const char *text)
{
	FILE *out = level < LOG_LEVEL_RESULT || report_is_aside ? stderr : stdout;
	struct timespec now;

	(void)data;
	if (level > report_verbosity)
		return;
	/* Keeps the order where both go to one place. */
	fflush(out == stderr ? stdout : stderr);
	if (report_verbosity >= VERBOSITY_TIMES) {
		clock_gettime(CLOCK_REALTIME, &now);
		fprintf(out, "[%2u.%06u] ", (unsigned)(now.tv_sec % 60), (unsigned)(now.tv_nsec / 1000));
	}
	fprintf(out, "%s\n", text);
}

void report_init(int verbosity)
{
	report_verbosity = verbosity;
	ploop_set_log(report_line, NULL);
}

void report_aside(void)
{
	report_is_aside = true;
}

int report_error(const struct ploop_error *err)
{
	log_error("%s", err->text);
	return err->status ? (int)err->status : PLOOP_EXIT_SYS;
}
