/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* convert.c - `ploop convert`. */
#include <string.h>

#include "cli/arg.h"
#include "cli/call.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/size.h"
#include "cli/verbs.h"

enum {
	OPTION_FROM = OPTION_OWN,
	OPTION_ALL,
	OPTION_NO_VERIFY,
	OPTION_OUTSIDE,
};

struct arguments {
	const char *format, *output;
	unsigned version;
	bool all, no_verify;
	struct ploop_files files;
	char uuid[ARG_UUID];
	enum progress_mode progress;
};

static int take_cluster(struct arguments *own, const char *value, struct ploop_error *err)
{
	uint64_t sectors;
	int r = number_parse(value, "-b", UINT32_MAX / SIZE_SECTORS, &sectors, err);

	if (r == 0)
		own->files.cluster = (uint32_t)sectors * SIZE_SECTORS;
	return r;
}

static int take_option(struct arguments *own, int option, const char *value, struct ploop_error *err)
{
	switch (option) {
	case 'f':
		own->format = value;
		return 0;
	case 'v':
		return arg_version(value, &own->version, err);
	case 'o':
		own->output = value;
		return 0;
	case 'u':
		own->files.snapshot = own->uuid;
		return arg_uuid(value, own->uuid, err);
	case 'b':
		return take_cluster(own, value, err);
	case OPTION_FROM:
		own->files.format = strcmp(value, "qcow2") ? value : NULL; /* that is seen by itself */
		return 0;
	case OPTION_ALL:
		own->all = true;
		return 0;
	case OPTION_NO_VERIFY:
		own->no_verify = true;
		return 0;
	case OPTION_OUTSIDE:
		own->files.outside = true;
		return 0;
	default:
		return progress_parse(value, &own->progress, err);
	}
}

static int in_place(const struct arguments *own, const char *disk, struct progress *progress, struct ploop_error *err)
{
	const struct ploop_convert convert = {
		.disk = disk,
		.format = own->format,
		.version = own->version,
		.no_verify = own->no_verify,
		.progress = progress_report,
		.progress_data = progress,
	};

	return ploop_convert(&convert, err);
}

static int to_output(const struct arguments *own, struct progress *progress, struct ploop_error *err)
{
	const struct ploop_convert_output convert = {
		.source = &own->files,
		.image = own->output,
		.format = own->format,
		.version = own->version,
		.snapshots = own->all,
		.no_verify = own->no_verify,
		.progress = progress_report,
		.progress_data = progress,
	};

	return ploop_convert_output(&convert, err);
}

static int check(const struct arguments *own, struct call *call)
{
	if (own->output)
		return call->noperands ? 0 : call_usage(call, "say what to convert: a DiskDescriptor.xml, or images");
	if (call->noperands != 1)
		return call_usage(call, "give one DiskDescriptor.xml");
	if (!own->format && !own->version)
		return call_usage(call, "say what it shall become: -f FORMAT, -v VERSION, or --output FILE");
	if (own->all || own->files.snapshot || own->files.cluster || own->files.format)
		return call_usage(call, "--all, -u, -b and --from go with --output");
	return 0;
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
	r = check(&own, call);
	if (r)
		return r;
	own.files.paths = (const char *const *)call->operands;
	own.files.npaths = (unsigned)call->noperands;
	progress_start(&progress, own.progress);
	r = own.output ? to_output(&own, &progress, &err) : in_place(&own, call->operands[0], &progress, &err);
	progress_end(&progress);
	return r < 0 ? report_error(&err) : PLOOP_EXIT_OK;
}

static const struct verb_option options[] = {
	{ 'f', "format", "expanded|preallocated|raw|qcow2", "what the image shall be; qcow2 with --output only" },
	{ 'v', "version", "1|2", "version of ploop1 images" },
	{ 'o', "output", "FILE", "leave the disk as it is, and write this new file" },
	{ 'u', "uuid", "UUID", "with --output: this snapshot instead of the disk as it is now" },
	{ OPTION_ALL, "all", NULL, "with --output and qcow2: the snapshots too, as files below one another" },
	{ OPTION_FROM, "from", "raw|ploop1|qcow2",
	  "with --output: format of the source, when it is no disk with a descriptor" },
	{ 'b', "blocksize", "SECTORS", "with --output: cluster size for a raw or qcow2 source (2048)" },
	{ OPTION_OUTSIDE, "outside", NULL, "with --output: follow the descriptor to files outside its folder" },
	{ OPTION_NO_VERIFY, "no-verify", NULL, "do not read back and compare what was written" },
	VERB_OPTION_PROGRESS,
	{ 0 },
};

const struct verb verb_convert = {
	.name = "convert",
	.group = "Disks",
	.summary = "give a disk another format or version; export and import files",
	.synopsis = "{-f FORMAT | -v VERSION} DESCRIPTOR\n"
		    "-o FILE [-f FORMAT] [-v VERSION] [-u UUID] [--all] {DESCRIPTOR | IMAGE..}\n"
		    "-o IMAGE [-f FORMAT] [-v VERSION] [-b SECTORS] --from raw|qcow2 FILE",
	.details = "Without --output the disk is not mounted, and keeps its files' names and its snapshots.\n"
		   "With --output NAME.qcow2 and NAME.raw say their format.\n",
	.options = options,
	.run = run,
};
