/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* grow.c - `ploop grow`. */
#include <stdio.h>
#include <string.h>

#include "cli/arg.h"
#include "cli/call.h"
#include "cli/json.h"
#include "cli/report.h"
#include "cli/size.h"
#include "cli/verbs.h"

struct arguments {
	struct ploop_grow grow;
	bool json;
};

static int take_option(struct arguments *own, int option, const char *value, struct ploop_error *err)
{
	enum arg_format format;
	int r;

	switch (option) {
	case 's':
		return size_parse(value, "-s", SIZE_SECTORS, &own->grow.size, err);
	case 'd':
		own->grow.device = value;
		return 0;
	case 'f':
		r = arg_format(value, &format, err);
		own->grow.format = format == ARG_FORMAT_RAW ? "raw" : "ploop1";
		return r;
	default:
		own->json = true;
		return 0;
	}
}

static int check(struct call *call, const struct arguments *own)
{
	if (!own->grow.size)
		return call_usage(call, "give the new size with -s");
	if (own->grow.device && (call->noperands || own->grow.format))
		return call_usage(call, "with -d there is neither a file nor a format");
	if (!own->grow.device && call->noperands != 1)
		return call_usage(call, "give one DiskDescriptor.xml or DELTA, or a device with -d");
	return 0;
}

static int run(struct call *call)
{
	struct arguments own = { 0 };
	struct ploop_error err;
	uint64_t size;
	int c;

	while ((c = call_option(call)) != CALL_END) {
		if (c == CALL_BAD)
			return PLOOP_EXIT_PARAM;
		if (take_option(&own, c, call->value, &err) < 0)
			return call_usage_error(call, &err);
	}
	c = check(call, &own);
	if (c)
		return c;
	own.grow.disk = call->noperands ? call->operands[0] : NULL;
	if (ploop_grow(&own.grow, &size, &err) < 0)
		return report_error(&err);
	if (own.json) {
		struct json_object *result = json_object_new_object();

		json_add_number(result, "size", size);
		return json_print(result);
	}
	return PLOOP_EXIT_OK;
}

static const struct verb_option options[] = {
	{ 's', "size", "SIZE", "the new size, in sectors or with K, M, G, T; rounded up to whole clusters" },
	{ 'd', "device", "DEVICE", "this device, while it is used" },
	{ 'f', "format", "raw|ploop1|expanded", "format of DELTA (what a descriptor says, or ploop1)" },
	VERB_OPTION_JSON,
	{ 0 },
};

const struct verb verb_grow = {
	.name = "grow",
	.group = "Space",
	.summary = "make a disk larger, mounted or not",
	.synopsis = "-s SIZE -d DEVICE\n-s SIZE DESCRIPTOR\n-s SIZE [-f FORMAT] DELTA",
	.details = "Only the image and the device grow: partitions and file systems are for growpart, resize2fs and "
		   "the like.\n"
		   "Whatever is interrupted when, the disk has the old size or the new one; growing it again finishes "
		   "it.\n",
	.options = options,
	.run = run,
};
