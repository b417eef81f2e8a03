/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* snapshot-merge.c - `ploop snapshot-merge`. */
#include "cli/arg.h"
#include "cli/call.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/size.h"
#include "cli/verbs.h"

enum {
	OPTION_RATE = OPTION_OWN,
};

struct arguments {
	struct ploop_snapshot_merge merge;
	char uuid[ARG_UUID], ancestor[ARG_UUID];
	enum progress_mode progress;
};

static int take_option(struct arguments *own, int option, const char *value, struct ploop_error *err)
{
	switch (option) {
	case 'u':
		own->merge.uuid = own->uuid;
		return arg_uuid(value, own->uuid, err);
	case 'U':
		own->merge.ancestor = own->ancestor;
		return arg_uuid(value, own->ancestor, err);
	case 'A':
		own->merge.all = true;
		return 0;
	case 'n':
		own->merge.new_image = value;
		return 0;
	case OPTION_RATE:
		return size_parse(value, "--rate", SIZE_BYTES, &own->merge.bytes_a_second, err);
	default:
		return progress_parse(value, &own->progress, err);
	}
}

static int run(struct call *call)
{
	struct arguments own = { 0 };
	struct progress progress;
	struct ploop_error err;
	int c, r;

	while ((c = call_option(call)) != CALL_END) {
		if (c == CALL_BAD)
			return PLOOP_EXIT_PARAM;
		if (take_option(&own, c, call->value, &err) < 0)
			return call_usage_error(call, &err);
	}
	if (call->noperands != 1)
		return call_usage(call, "give one DiskDescriptor.xml");
	own.merge.disk = call->operands[0];
	own.merge.progress = progress_report;
	own.merge.progress_data = &progress;
	progress_start(&progress, own.progress);
	r = ploop_snapshot_merge(&own.merge, &err);
	progress_end(&progress);
	return r < 0 ? report_error(&err) : PLOOP_EXIT_OK;
}

static const struct verb_option options[] = {
	{ 'u', "uuid", "UUID", "merge this snapshot into its parent, and keep its name (the top)" },
	{ 'U', "uuid2", "UUID", "all between are merged as well, down into this one" },
	{ 'A', "all", NULL, "merge the top and all below it into the base" },
	{ 'n', "new-delta", "FILE", "into this new image; only while the disk is not mounted" },
	{ OPTION_RATE, "rate", "SIZE", "at most so many bytes a second" },
	VERB_OPTION_PROGRESS,
	{ 0 },
};

const struct verb verb_snapshot_merge = {
	.name = "snapshot-merge",
	.group = "Snapshots",
	.summary = "make one snapshot of two or more",
	.synopsis = "[-u UUID [-U UUID] | -A] [-n NEW_DELTA] [--rate SIZE] DESCRIPTOR",
	.details = "The name of the uppermost is kept, and files that are not needed any more go.\n",
	.options = options,
	.run = run,
};
