/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* replace.c - `ploop replace`: an image gives way to another one that holds the same. */
#include <stdio.h>

#include "cli/arg.h"
#include "cli/call.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/size.h"
#include "cli/verbs.h"

enum { OPTION_NO_COMPARE = OPTION_OWN };

#define LEVEL_MOST 1000000u /* beyond what any stack has: the device says what it has */

struct arguments {
	struct ploop_replace replace;
	char uuid[ARG_UUID];
	bool level;
	enum progress_mode mode;
};

static int take_level(struct arguments *own, const char *value, struct ploop_error *err)
{
	uint64_t level;
	int r = number_parse(value, "-l", LEVEL_MOST, &level, err);

	if (r < 0)
		return r;
	own->replace.level = (unsigned)level;
	own->level = true;
	return 0;
}

static int take_format(struct arguments *own, const char *value, struct ploop_error *err)
{
	enum arg_format format;
	int r = arg_format(value, &format, err);

	if (r == 0)
		own->replace.format = format == ARG_FORMAT_RAW ? "raw" : "ploop1";
	return r;
}

static int take_option(struct arguments *own, int option, const char *value, struct ploop_error *err)
{
	switch (option) {
	case 'd':
		own->replace.which.device = value;
		return 0;
	case 'm':
		own->replace.which.target = value;
		return 0;
	case 'u':
		own->replace.uuid = own->uuid;
		return arg_uuid(value, own->uuid, err);
	case 'l':
		return take_level(own, value, err);
	case 'o':
		own->replace.current = value;
		return 0;
	case 'i':
		own->replace.image = value;
		return 0;
	case 'f':
		return take_format(own, value, err);
	case 'k':
		own->replace.keep_name = true;
		return 0;
	case 'w':
		return 0; /* how it was opened by newer originals: ours opens it as the device uses it */
	case OPTION_NO_COMPARE:
		own->replace.no_compare = true;
		return 0;
	default:
		return progress_parse(value, &own->mode, err);
	}
}

static int check(struct call *call, struct arguments *own)
{
	const struct ploop_which *which = &own->replace.which;

	own->replace.which.image = call->noperands ? call->operands[0] : NULL;
	if (call->noperands > 1 || (call->noperands != 0) + (which->device != NULL) + (which->target != NULL) != 1)
		return call_usage(call, "give one of -d, -m and DiskDescriptor.xml");
	if (own->level + (own->replace.uuid != NULL) + (own->replace.current != NULL) != 1)
		return call_usage(call, "give one of -l, -o and -u");
	if (own->replace.uuid && !which->image)
		return call_usage(call, "-u goes with DiskDescriptor.xml");
	if (!own->replace.image)
		return call_usage(call, "image file not specified (use -i)");
	return PLOOP_EXIT_OK;
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
	r = check(call, &own);
	if (r != PLOOP_EXIT_OK)
		return r;
	own.replace.progress = progress_report;
	own.replace.progress_data = &progress;
	progress_start(&progress, own.mode);
	r = ploop_replace(&own.replace, &err);
	progress_end(&progress);
	return r < 0 ? report_error(&err) : PLOOP_EXIT_OK;
}

static const struct verb_option options[] = {
	{ 'd', "device", "DEVICE", "an image of this device" },
	{ 'm', "mount-point", "DIR", "an image of the disk that is mounted here" },
	{ 'l', "level", "LEVEL", "the image of that level of the device; 0 is the base" },
	{ 'o', "orig-image", "FILE", "the image itself" },
	{ 'u', "uuid", "UUID", "the image of that snapshot" },
	{ 'i', "image", "FILE", "the image that takes its place" },
	{ 'k', "keep-name", NULL, "give it the name of the old one, which is gone then" },
	{ 'f', "format", "raw|ploop1|expanded", "the format of both" },
	{ OPTION_NO_COMPARE, "no-compare", NULL, "believe that they hold the same" },
	{ 'w', "read-write", NULL, NULL },
	VERB_OPTION_PROGRESS,
	{ 0 },
};

const struct verb verb_replace = {
	.name = "replace",
	.group = "Snapshots",
	.summary = "let another image that holds the same take the place of one",
	.synopsis = "{-d DEVICE | -m DIR} {-l LEVEL | -o FILE} [-k] [--no-compare] -i NEW\n"
		    "{-u UUID | -l LEVEL | -o FILE} [-k] [--no-compare] -i NEW DESCRIPTOR",
	.details = "In use, only images that are not written to. Both are compared before anything changes.\n",
	.options = options,
	.run = run,
};
