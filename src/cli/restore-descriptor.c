/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* restore-descriptor.c - `ploop restore-descriptor`: a new DiskDescriptor.xml for a base whose own is lost. */
#include "cli/arg.h"
#include "cli/call.h"
#include "cli/report.h"
#include "cli/size.h"
#include "cli/verbs.h"

static int take_option(struct ploop_restore *what, int option, const char *value, struct ploop_error *err)
{
	enum arg_format format;
	uint64_t sectors;
	int r;

	if (option == 'f') {
		r = arg_format(value, &format, err);
		if (!r)
			what->format = format == ARG_FORMAT_RAW ? "raw" : "ploop1";
		return r;
	}
	r = number_parse(value, "-b", UINT32_MAX / SIZE_SECTORS, &sectors, err);
	if (!r)
		what->cluster = (uint32_t)sectors * SIZE_SECTORS;
	return r;
}

static int run(struct call *call)
{
	struct ploop_restore what = { 0 };
	struct ploop_error err;
	int c;

	while ((c = call_option(call)) != CALL_END) {
		if (c != 'f' && c != 'b')
			return PLOOP_EXIT_PARAM;
		if (take_option(&what, c, call->value, &err) < 0)
			return call_usage_error(call, &err);
	}
	if (call->noperands != 2)
		return call_usage(call, "give the folder and the base image");
	what.folder = call->operands[0];
	what.image = call->operands[1];
	if (ploop_restore_descriptor(&what, &err) < 0)
		return report_error(&err);
	return PLOOP_EXIT_OK;
}

static const struct verb_option options[] = {
	{ 'f', "format", "raw|ploop1|expanded", "format of the base (ploop1)" },
	{ 'b', "blocksize", "SECTORS", "cluster size of a raw base (the largest that divides its size)" },
	{ 0 },
};

const struct verb verb_restore_descriptor = {
	.name = "restore-descriptor",
	.group = "Disks",
	.summary = "write a new descriptor for a base image",
	.synopsis = "[-f raw] [-b BLOCKSIZE] DIR BASE_DELTA",
	.details = "Writes DIR/DiskDescriptor.xml when it is lost or broken. Snapshots are not found again.\n",
	.options = options,
	.run = run,
};
