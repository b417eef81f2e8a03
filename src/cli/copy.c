/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* copy.c - `ploop copy`: both halves, in one process or in two. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/call.h"
#include "cli/json.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/size.h"
#include "cli/verbs.h"

enum {
	OPTION_VIA = OPTION_OWN,
	OPTION_ALL,
	OPTION_FLAT,
	OPTION_COMPAT,
	OPTION_COMPRESS,
	OPTION_RESUME,
	OPTION_NO_FREEZE,
	OPTION_MAX_DOWNTIME,
	OPTION_MAX_PASSES,
	OPTION_RATE,
};

struct arguments {
	struct ploop_copy copy;
	const char *target;
	int input, output, feedback;
	enum progress_mode progress;
	bool json;
};

static int take_fd(const char *value, const char *option, int *ret, struct ploop_error *err)
{
	uint64_t number;
	int r = number_parse(value, option, 1u << 20, &number, err);

	if (r == 0)
		*ret = (int)number;
	return r;
}

static int take_u32(const char *value, const char *option, uint32_t *ret, struct ploop_error *err)
{
	uint64_t number;
	int r = number_parse(value, option, 1u << 30, &number, err);

	if (r == 0)
		*ret = (uint32_t)number;
	return r;
}

static int take_value(struct arguments *own, int option, const char *value, struct ploop_error *err)
{
	switch (option) {
	case 'o':
		return take_fd(value, "-o", &own->output, err);
	case 'i':
		return take_fd(value, "-i", &own->input, err);
	case 'f':
		return take_fd(value, "-f", &own->feedback, err);
	case OPTION_MAX_DOWNTIME:
		return take_u32(value, "--max-downtime", &own->copy.max_downtime_ms, err);
	case OPTION_MAX_PASSES:
		return take_u32(value, "--max-passes", &own->copy.max_passes, err);
	case OPTION_RATE:
		return size_parse(value, "--rate", SIZE_BYTES, &own->copy.bytes_a_second, err);
	default:
		return progress_parse(value, &own->progress, err);
	}
}

static int take_option(struct arguments *own, int option, const char *value, struct ploop_error *err)
{
	switch (option) {
	case 's':
		own->copy.source = value;
		return 0;
	case 'd':
		own->target = value;
		return 0;
	case 'F':
		own->copy.stop_command = value;
		return 0;
	case OPTION_VIA:
		own->copy.via = value;
		return 0;
	case OPTION_ALL:
		own->copy.all = true;
		return 0;
	case OPTION_FLAT:
		own->copy.flat = true;
		return 0;
	case OPTION_COMPAT:
		own->copy.compat = true;
		return 0;
	case OPTION_COMPRESS:
		own->copy.compress = true;
		return 0;
	case OPTION_RESUME:
		own->copy.resume = true;
		return 0;
	case OPTION_NO_FREEZE:
		own->copy.no_freeze = true;
		return 0;
	case OPTION_JSON:
		own->json = true;
		return 0;
	default:
		return take_value(own, option, value, err);
	}
}

static int print_json(const struct ploop_copy_report *report)
{
	struct json_object *object = json_object_new_object();

	json_add_number(object, "passes", report->passes);
	json_add_number(object, "bytes", report->bytes);
	json_add_number(object, "last_bytes", report->last_bytes);
	json_add_number(object, "elapsed_ms", report->elapsed_ns / 1000000);
	json_add_number(object, "downtime_ms", report->downtime_ns / 1000000);
	json_add_number(object, "stop_ms", report->stop_ns / 1000000);
	json_add_bool(object, "converged", report->converged);
	return json_print(object);
}

static bool stream_is_stdout(const struct arguments *own)
{
	return !own->target && !own->copy.via && own->output == 1;
}

static int print_report(const struct arguments *own, const struct ploop_copy_report *report)
{
	double seconds = (double)report->elapsed_ns / 1e9;
	char bytes[SIZE_TEXT], rate[SIZE_TEXT], last[SIZE_TEXT];
	bool quiet = stream_is_stdout(own);

	if (own->json && !quiet)
		return print_json(report);
	fprintf(quiet ? stderr : stdout,
		"Copied %s in %u passes and %.1f s (%s/s); the last pass had %s, "
		"and the disk stood still for %llu ms (%llu of the stop command)%s\n",
		size_format(report->bytes, bytes), report->passes, seconds,
		size_format((uint64_t)((double)report->bytes / (seconds > 0 ? seconds : 1)), rate),
		size_format(report->last_bytes, last), (unsigned long long)(report->downtime_ns / 1000000),
		(unsigned long long)(report->stop_ns / 1000000),
		report->converged ? "" : ": as much was written as could be copied");
	return PLOOP_EXIT_OK;
}

static int send(struct arguments *own)
{
	struct ploop_copy_report report;
	struct progress progress;
	struct ploop_error err;
	int r;

	if (own->json || stream_is_stdout(own))
		report_aside();
	own->copy.target = own->target;
	own->copy.stream = own->output;
	own->copy.feedback = own->feedback;
	own->copy.progress = progress_report;
	own->copy.progress_data = &progress;
	progress_start(&progress, own->progress);
	r = ploop_copy_send(&own->copy, &report, &err);
	progress_end(&progress);
	return r < 0 ? report_error(&err) : print_report(own, &report);
}

static int receive(struct arguments *own)
{
	struct progress progress;
	const struct ploop_copy_receive copy = {
		.target = own->target,
		.stream = own->input,
		.feedback = own->feedback,
		.resume = own->copy.resume,
		.progress = progress_report,
		.progress_data = &progress,
	};
	struct ploop_error err;
	int r;

	progress_start(&progress, own->progress);
	r = ploop_copy_receive(&copy, &err);
	progress_end(&progress);
	return r < 0 ? report_error(&err) : PLOOP_EXIT_OK;
}

static int run(struct call *call)
{
	struct arguments own = { .input = 0, .output = 1, .feedback = -1 };
	struct ploop_error err;
	int c;

	while ((c = call_option(call)) != CALL_END) {
		if (c == CALL_BAD)
			return PLOOP_EXIT_PARAM;
		if (take_option(&own, c, call->value, &err) < 0)
			return call_usage_error(call, &err);
	}
	if (call->noperands)
		return call_usage(call, "there are no operands");
	if (!own.copy.source && !own.target)
		return call_usage(call, "Either -s or -d is required");
	if (own.copy.via && own.target)
		return call_usage(call, "--via and -d are two ways to go");
	/* A receiver that dies is an error like others. */
	signal(SIGPIPE, SIG_IGN);
	return own.copy.source ? send(&own) : receive(&own);
}

static const struct verb_option options[] = {
	{ 's', "source", "DEVICE", "the device to copy; without -d the stream goes to standard output" },
	{ 'd', "destination", "FILE", "the new image (with --all: folder); without -s from a stream" },
	{ 'F', "stop-command", "COMMAND", "run when little is left: stops what writes to the disk" },
	{ 'o', "output-fd", "FD", "write the stream there (1)" },
	{ 'i', "input-fd", "FD", "read the stream from there (0)" },
	{ 'f', "feedback-fd", "FD", "the receiver answers there" },
	{ OPTION_VIA, "via", "COMMAND", "send to this command, whose output is the feedback" },
	{ OPTION_ALL, "all", NULL, "the whole disk: descriptor, snapshots and all" },
	{ OPTION_FLAT, "flat", NULL, "one image of all levels" },
	{ OPTION_COMPRESS, "compress", NULL, "compress the stream (zstd)" },
	{ OPTION_COMPAT, "compat", NULL, "write the original's stream" },
	{ OPTION_RESUME, "resume", NULL, "go on with a copy that broke off" },
	{ OPTION_NO_FREEZE, "no-freeze", NULL, "leave the mounted file system alone" },
	{ OPTION_MAX_DOWNTIME, "max-downtime", "MS", "begin the last pass when it takes no longer (200)" },
	{ OPTION_MAX_PASSES, "max-passes", "N", "begin the last pass after so many at the latest (20)" },
	{ OPTION_RATE, "rate", "SIZE", "at most so many bytes a second, but for the last pass" },
	VERB_OPTION_JSON,
	VERB_OPTION_PROGRESS,
	{ 0 },
};

const struct verb verb_copy = {
	.name = "copy",
	.group = "Disks",
	.summary = "copy a disk in use, to another file or another machine",
	.synopsis = "-s DEVICE -d FILE [--all|--flat] [-F COMMAND] [--resume]\n"
		    "-s DEVICE [-o FD] [-f FD] [--all|--flat] [-F COMMAND]\n"
		    "-s DEVICE --via COMMAND [--all|--flat] [-F COMMAND]\n"
		    "-d FILE [-i FD] [-f FD] [--resume]",
	.details = "Only what is there is sent, and then what has changed, until little is left.\n",
	.options = options,
	.run = run,
};
