/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * progress.h - how far a long operation is, on standard error: one line that rewrites itself on a terminal, once the
 * work takes over a second; or one JSON object a line with --progress=json. Also turns ^C into a polite request to stop.
 *
 *	struct progress progress;
 *
 *	progress_start(&progress, PROGRESS_AUTO);
 *	r = ploop_something(..., progress_report, &progress, &err);
 *	progress_end(&progress);
 */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include <ploop/ploop.h>

enum progress_mode {
	PROGRESS_AUTO,
	PROGRESS_JSON,
	PROGRESS_NONE,
};

#define PROGRESS_SIGNALS 3

struct progress {
	enum progress_mode mode;
	uint64_t started, printed; /* ns */
	bool on_terminal;
	bool line; /* a line that must be ended is on the terminal */
	struct sigaction before[PROGRESS_SIGNALS];
};

/* The argument of --progress. */
int progress_parse(const char *text, enum progress_mode *ret, struct ploop_error *err);

/* From here to progress_end() SIGINT, SIGTERM and SIGHUP ask the operation to stop instead of killing the process. */
void progress_start(struct progress *progress, enum progress_mode mode);
void progress_end(struct progress *progress);

/* A ploop_progress_fn; `data` is the struct progress. */
int progress_report(void *data, const char *stage, uint64_t done, uint64_t total);

#endif
