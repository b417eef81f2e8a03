/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* backup.c - `ploop backup`. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cli/call.h"
#include "cli/json.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/size.h"
#include "cli/verbs.h"

enum {
	OPTION_SINCE = OPTION_OWN,
	OPTION_COMPRESS,
	OPTION_NO_FREEZE,
	OPTION_RATE,
};

struct arguments {
	struct ploop_backup backup;
	enum progress_mode progress;
	bool json;
};

static int take_option(struct arguments *own, int option, const char *value, struct ploop_error *err)
{
	switch (option) {
	case OPTION_SINCE:
		own->backup.since = value;
		return 0;
	case 'o':
		own->backup.output = value;
		return 0;
	case OPTION_COMPRESS:
		own->backup.compress = true;
		return 0;
	case OPTION_NO_FREEZE:
		own->backup.no_freeze = true;
		return 0;
	case OPTION_JSON:
		own->json = true;
		return 0;
	case OPTION_RATE:
		return size_parse(value, "--rate", SIZE_BYTES, &own->backup.bytes_a_second, err);
	default:
		return progress_parse(value, &own->progress, err);
	}
}

static int print_json(const struct ploop_backup_report *report)
{
	struct json_object *object = json_object_new_object();

	json_add_text(object, "uuid", report->uuid);
	json_add_text(object, "since", report->since[0] ? report->since : NULL);
	json_add_bool(object, "tracked", report->tracked);
	json_add_number(object, "passes", report->passes);
	json_add_number(object, "bytes", report->bytes);
	json_add_number(object, "elapsed_ms", report->elapsed_ns / 1000000);
	json_add_number(object, "downtime_ms", report->downtime_ns / 1000000);
	return json_print(object);
}

static int print_report(const struct arguments *own, const struct ploop_backup_report *report)
{
	bool quiet = !own->backup.output;
	char bytes[SIZE_TEXT];

	if (own->json && !quiet)
		return print_json(report);
	fprintf(quiet ? stderr : stdout, "Backup %s%s%s: %s in %.1f s; the disk stood still for %llu ms\n", report->uuid,
		report->since[0] ? " since " : "", report->since, size_format(report->bytes, bytes),
		(double)report->elapsed_ns / 1e9, (unsigned long long)(report->downtime_ns / 1000000));
	return PLOOP_EXIT_OK;
}

static int backup(struct arguments *own)
{
	struct ploop_backup_report report;
	struct progress progress;
	struct ploop_error err;
	int r;

	if (!strcmp(own->backup.output, "-"))
		own->backup.output = NULL;
	if (own->json || !own->backup.output)
		report_aside();
	own->backup.stream = 1;
	own->backup.progress = progress_report;
	own->backup.progress_data = &progress;
	/* A reader that dies is an error like others. */
	signal(SIGPIPE, SIG_IGN);
	progress_start(&progress, own->progress);
	r = ploop_backup(&own->backup, &report, &err);
	progress_end(&progress);
	return r < 0 ? report_error(&err) : print_report(own, &report);
}

static int run(struct call *call)
{
	struct arguments own = { 0 };
	struct ploop_error err;
	int c;

	while ((c = call_option(call)) != CALL_END) {
		if (c == CALL_BAD)
			return PLOOP_EXIT_PARAM;
		if (take_option(&own, c, call->value, &err) < 0)
			return call_usage_error(call, &err);
	}
	if (call->noperands != 1)
		return call_usage(call, "give one DiskDescriptor.xml, its folder, an image or a device");
	if (!own.backup.output)
		return call_usage(call, "where to? Give -o FILE, or -o - for standard output");
	own.backup.disk = call->operands[0];
	return backup(&own);
}

static const struct verb_option options[] = {
	{ 'o', "output", "FILE", "the file of the backup; - for standard output" },
	{ OPTION_SINCE, "since", "UUID", "only what has changed since that backup; its file will do, too" },
	{ OPTION_COMPRESS, "compress", NULL, "compress it (zstd)" },
	{ OPTION_NO_FREEZE, "no-freeze", NULL, "leave the mounted file system alone" },
	{ OPTION_RATE, "rate", "SIZE", "at most so many bytes a second, but for the last pass" },
	VERB_OPTION_JSON,
	VERB_OPTION_PROGRESS,
	{ 0 },
};

const struct verb verb_backup = {
	.name = "backup",
	.group = "Disks",
	.summary = "write what a disk holds, or what has changed since another backup, to a file",
	.synopsis = "-o FILE [--since UUID|FILE] [--compress] {DESCRIPTOR | DIR | IMAGE | DEVICE}",
	.details = "From then on what changes is noted, for the next backup.\n",
	.options = options,
	.run = run,
};
