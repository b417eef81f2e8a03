/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* mount.c - `ploop mount`. */
#include <string.h>

#include "cli/arg.h"
#include "cli/call.h"
#include "cli/report.h"
#include "cli/size.h"
#include "cli/verbs.h"

#define MAX_CLUSTER_SECTORS (1u << 22)

enum {
	OPTION_FRONT_END = OPTION_OWN,
	OPTION_IO,
	OPTION_LOG,
	OPTION_ON_FULL,
	OPTION_OUTSIDE,
};

struct arguments {
	struct ploop_mount what;
	char uuid[ARG_UUID];
};

static int take_format(struct arguments *arguments, const char *text, struct ploop_error *err)
{
	enum arg_format format;
	int r;

	r = arg_format(text, &format, err);
	if (r == 0)
		arguments->what.base_format = format == ARG_FORMAT_RAW ? "raw" : "ploop1";
	return r;
}

static int take_cluster(struct arguments *arguments, const char *text, struct ploop_error *err)
{
	uint64_t sectors;
	int r;

	r = number_parse(text, "-b", MAX_CLUSTER_SECTORS, &sectors, err);
	if (r == 0)
		arguments->what.cluster = (uint32_t)(sectors * SIZE_SECTORS);
	return r;
}

static int take_uuid(struct arguments *arguments, const char *text, struct ploop_error *err)
{
	int r;

	if (!strcmp(text, "base")) {
		arguments->what.snapshot = text;
		return 0;
	}
	r = arg_uuid(text, arguments->uuid, err);
	arguments->what.snapshot = arguments->uuid;
	return r;
}

/* The options with an argument that must be looked at. */
static int take_value(struct arguments *arguments, int option, const char *value, struct ploop_error *err)
{
	switch (option) {
	case 'f':
		return take_format(arguments, value, err);
	case 'b':
		return take_cluster(arguments, value, err);
	default:
		return take_uuid(arguments, value, err);
	}
}

/* Returns CALL_END, or the exit status for bad options. */
static int take_options(struct call *call, struct arguments *arguments)
{
	struct ploop_mount *what = &arguments->what;
	struct ploop_error err;
	int c;

	while ((c = call_option(call)) != CALL_END) {
		switch (c) {
		case 'r':
			what->read_only = true;
			break;
		case 'F':
			what->fsck = true;
			break;
		case 'n':
			break;
		case 'd':
			what->device = call->value;
			break;
		case 'm':
			what->target = call->value;
			break;
		case 'o':
			what->options = call->value;
			break;
		case 't':
			what->fstype = call->value;
			break;
		case 'c':
			what->component = call->value;
			break;
		case OPTION_FRONT_END:
			what->front_end = call->value;
			break;
		case OPTION_IO:
			what->io_module = call->value;
			break;
		case OPTION_LOG:
			what->log = call->value;
			break;
		case OPTION_OUTSIDE:
			what->outside = true;
			break;
		case OPTION_ON_FULL:
			what->fail_when_full = !strcmp(call->value, "error");
			if (!what->fail_when_full && strcmp(call->value, "stop"))
				return call_usage(call, "Bad --on-full argument: %s", call->value);
			break;
		case CALL_BAD:
			return PLOOP_EXIT_PARAM;
		default:
			if (take_value(arguments, c, call->value, &err) < 0)
				return call_usage_error(call, &err);
		}
	}
	return CALL_END;
}

static int run(struct call *call)
{
	struct arguments arguments = { 0 };
	struct ploop_error err;
	int r;

	r = take_options(call, &arguments);
	if (r != CALL_END)
		return r;
	if (!call->noperands)
		return call_usage(call, "give a DiskDescriptor.xml, or images from base to top");
	arguments.what.operands = (const char *const *)call->operands;
	arguments.what.noperands = (unsigned)call->noperands;
	if (ploop_mount(&arguments.what, NULL, &err) < 0)
		return report_error(&err);
	return PLOOP_EXIT_OK;
}

static const struct verb_option options[] = {
	{ 'r', "read-only", NULL, "write no byte to any image" },
	{ 'F', "fsck", NULL, "check and preen the file system first" },
	{ 'f', "format", "raw|ploop1", "format of the base, for images without descriptor" },
	{ 'b', "blocksize", "SECTORS", "cluster size of a raw base without descriptor" },
	{ 'd', "device", "DEVICE", "name of the device, /dev/ploopN (default: a free one)" },
	{ 'm', "mount-point", "DIR", "mount the file system there" },
	{ 'o', "options", "OPTIONS", "mount options of the file system" },
	{ 't', "fs-type", "TYPE", "type of the file system (default: what is found)" },
	{ 'u', "uuid", "UUID", "the snapshot to mount; \"base\" for the base (default: the top)" },
	{ 'c', "component", "NAME", "one of several devices on one disk" },
	{ OPTION_FRONT_END, "front-end", "NAME", "how the kernel reaches the disk, see ploop modules" },
	{ OPTION_IO, "io", "NAME", "how files are read and written, see ploop modules" },
	{ OPTION_ON_FULL, "on-full", "stop|error", "when the host has no space left (default: stop, which waits)" },
	{ OPTION_OUTSIDE, "outside", NULL, "follow the descriptor to images outside its folder" },
	{ OPTION_LOG, "log", "FILE", "messages of ploopd (default: syslog)" },
	{ 'n', "no-partprobe", NULL, NULL },
	{ 0 },
};

const struct verb verb_mount = {
	.name = "mount",
	.group = "Devices",
	.summary = "make a disk a device, and mount its file system",
	.synopsis = "[-rF] [-f FORMAT] [-b N] [-d DEVICE] [-m DIR] [-t TYPE] [-o OPTIONS] BASE [DELTA..]\n"
		    "[-rF] [-d DEVICE] [-m DIR] [-t TYPE] [-o OPTIONS] [-u UUID] [-c NAME] DESCRIPTOR",
	.details = "A person finds /dev/ploopN and, for its first partition, /dev/ploopNp1. Images are named from base "
		   "to top.",
	.options = options,
	.run = run,
};
