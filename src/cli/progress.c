/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* progress.c - see progress.h. */
#include "cli/progress.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"

#define SECOND 1000000000ull
#define PROGRESS_QUIET SECOND /* shorter work shows nothing */
#define PROGRESS_INTERVAL (SECOND / 5)

static const int progress_signals[PROGRESS_SIGNALS] = { SIGINT, SIGTERM, SIGHUP };
static volatile sig_atomic_t progress_cancelled;

static void progress_cancel(int signal)
{
	static const char text[] = "Cancelling...\n";
	ssize_t ignored;

	(void)signal;
	progress_cancelled = 1;
	ignored = write(STDERR_FILENO, text, sizeof(text) - 1);
	(void)ignored;
}

/* A signal that is ignored, as by nohup, stays so. */
static void progress_catch(struct progress *progress)
{
	const struct sigaction action = { .sa_handler = progress_cancel, .sa_flags = SA_RESTART };

	for (unsigned i = 0; i < PROGRESS_SIGNALS; i++) {
		sigaction(progress_signals[i], NULL, &progress->before[i]);
		if (progress->before[i].sa_handler != SIG_IGN)
			sigaction(progress_signals[i], &action, NULL);
	}
}

static void progress_release(const struct progress *progress)
{
	for (unsigned i = 0; i < PROGRESS_SIGNALS; i++)
		sigaction(progress_signals[i], &progress->before[i], NULL);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

int progress_parse(const char *text, enum progress_mode *ret, struct ploop_error *err)
{
	static const char *const words[] = { "auto", "json", "none" };

	for (unsigned i = 0; i < 3; i++) {
		if (!strcmp(text, words[i])) {
			*ret = (enum progress_mode)i;
			return 0;
		}
	}
	return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "--progress is auto, json or none, not %s", text);
}

void progress_start(struct progress *progress, enum progress_mode mode)
{
	*progress = (struct progress){ .mode = mode, .started = now_ns(), .on_terminal = isatty(STDERR_FILENO) };
	progress_cancelled = 0;
	progress_catch(progress);
}

void progress_end(struct progress *progress)
{
	if (progress->line)
		fprintf(stderr, "\r\033[K");
	progress->line = false;
	progress_release(progress);
}

static void progress_print_json(const char *stage, uint64_t done, uint64_t total)
{
	fprintf(stderr, "{\"stage\":\"%s\",\"done\":%llu,\"total\":%llu}\n", stage, (unsigned long long)done,
		(unsigned long long)total);
}

static void progress_print_line(struct progress *progress, const char *stage, uint64_t done, uint64_t total)
{
	if (total)
		fprintf(stderr, "\r%s: %3u %%\033[K", stage, (unsigned)((double)done * 100 / (double)total));
	else
		fprintf(stderr, "\r%s: %llu\033[K", stage, (unsigned long long)done);
	fflush(stderr);
	progress->line = true;
}

int progress_report(void *data, const char *stage, uint64_t done, uint64_t total)
{
	struct progress *progress = data;
	bool last = total && done >= total;
	uint64_t now;

	if (progress_cancelled)
		return -ECANCELED;
	if (progress->mode == PROGRESS_NONE || (progress->mode == PROGRESS_AUTO && !progress->on_terminal))
		return 0;
	now = now_ns();
	if (now - progress->printed < PROGRESS_INTERVAL && !last)
		return 0;
	if (progress->mode == PROGRESS_JSON) {
		progress_print_json(stage, done, total);
	} else if (now - progress->started >= PROGRESS_QUIET) {
		progress_print_line(progress, stage, done, total);
	}
	progress->printed = now;
	return 0;
}
