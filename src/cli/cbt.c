/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cbt.c - `ploop cbt`: what the dirty bitmaps of a disk say. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/call.h"
#include "cli/cbt-dump.h"
#include "cli/json.h"
#include "cli/report.h"
#include "cli/size.h"
#include "cli/verbs.h"

enum {
	OPTION_SRC = OPTION_OWN,
	OPTION_DST,
	OPTION_IMAGE,
};

struct arguments {
	const char *uuid, *src, *dst, *output;
	bool json;
};

static int show_json(const struct ploop_bitmap *bitmaps, size_t n, uint64_t size)
{
	struct json_object *object = json_object_new_object(), *list = json_add_list(object, "bitmaps");

	json_add_number(object, "size", size);
	for (size_t i = 0; i < n; i++) {
		struct json_object *one = json_list_add(list);

		json_add_text(one, "uuid", bitmaps[i].uuid);
		json_add_number(one, "granularity", bitmaps[i].granularity);
		json_add_number(one, "dirty", bitmaps[i].dirty);
	}
	return json_print(object);
}

static int show(const struct arguments *own, const char *disk)
{
	struct ploop_bitmap *bitmaps;
	char granularity[SIZE_TEXT], dirty[SIZE_TEXT];
	struct ploop_error err;
	uint64_t size;
	size_t n;
	int status = PLOOP_EXIT_OK;

	if (ploop_bitmaps(disk, &bitmaps, &n, &size, &err) < 0)
		return report_error(&err);
	if (own->json)
		status = show_json(bitmaps, n, size);
	else if (n)
		printf("%-38s  %11s  %s\n", "UUID", "GRANULARITY", "CHANGED");
	for (size_t i = 0; i < n && !own->json; i++)
		printf("%-38s  %11s  %s\n", bitmaps[i].uuid, size_format(bitmaps[i].granularity, granularity),
		       size_format(bitmaps[i].dirty, dirty));
	free(bitmaps);
	return status;
}

static int start(const struct arguments *own, const char *disk)
{
	struct ploop_error err;
	char uuid[PLOOP_UUID];

	if (ploop_bitmap_start(disk, own->uuid, uuid, &err) < 0)
		return report_error(&err);
	if (own->json) {
		struct json_object *object = json_object_new_object();

		json_add_text(object, "uuid", uuid);
		return json_print(object);
	}
	printf("%s\n", uuid);
	return PLOOP_EXIT_OK;
}

static int drop(const struct arguments *own, const char *disk)
{
	struct ploop_error err;

	return ploop_bitmap_drop(disk, own->uuid, &err) < 0 ? report_error(&err) : PLOOP_EXIT_OK;
}

static int dump(struct call *call, const struct arguments *own, const char *disk)
{
	struct ploop_error err;

	if (own->src && disk)
		return call_usage(call, "--src, or a disk, not both");
	return cbt_dump(own->src ? own->src : disk, own->uuid, own->dst, &err) < 0 ? report_error(&err) : PLOOP_EXIT_OK;
}

static int diff(const struct arguments *own, char **files)
{
	struct ploop_error err;

	return cbt_diff(files[0], files[1], own->output, own->json, &err) < 0 ? report_error(&err) : PLOOP_EXIT_OK;
}

static int run_command(struct call *call, const struct arguments *own)
{
	const char *command = call->noperands ? call->operands[0] : "";
	int rest = call->noperands - 1;

	if (!strcmp(command, "diff")) {
		if (rest != 2)
			return call_usage(call, "diff takes two files that dump wrote");
		return diff(own, call->operands + 1);
	}
	if (!strcmp(command, "dump") && (rest == 1 || (own->src && !rest)))
		return dump(call, own, rest ? call->operands[1] : NULL);
	if (!strcmp(command, "show") && own->src && !rest)
		return show(own, own->src);
	if (rest != 1)
		return call_usage(call, "give show, dump, start, drop or diff, and one disk");
	if (!strcmp(command, "show"))
		return show(own, call->operands[1]);
	if (!strcmp(command, "start"))
		return start(own, call->operands[1]);
	if (!strcmp(command, "drop"))
		return drop(own, call->operands[1]);
	return call_usage(call, "there is no `cbt %s`", command);
}

static int run(struct call *call)
{
	struct arguments own = { 0 };
	int c;

	while ((c = call_option(call)) != CALL_END) {
		switch (c) {
		case 'u':
			own.uuid = call->value;
			break;
		case 'o':
			own.output = call->value;
			break;
		case OPTION_SRC:
		case OPTION_IMAGE:
			own.src = call->value;
			break;
		case OPTION_DST:
			own.dst = call->value;
			break;
		case OPTION_JSON:
			own.json = true;
			break;
		default:
			return PLOOP_EXIT_PARAM;
		}
	}
	return run_command(call, &own);
}

static const struct verb_option options[] = {
	{ 'u', "uuid", "UUID", "this bitmap; drop: without it all; dump: when there are several" },
	{ OPTION_DST, "dst", "FILE", "dump: write to this file" },
	{ OPTION_SRC, "src", "FILE", "dump: of this image or dump" },
	{ OPTION_IMAGE, "image", "FILE", "show: of this image" },
	{ 'o', "output", "FILE", "diff: write to this file" },
	VERB_OPTION_JSON,
	{ 0 },
};

const struct verb verb_cbt = {
	.name = "cbt",
	.group = "Look",
	.summary = "dirty bitmaps: what has changed since a backup",
	.synopsis = "show [--json] {DESCRIPTOR | DIR | DEVICE | --image IMAGE}\n"
		    "dump [-u UUID] [--dst FILE] {DESCRIPTOR | DIR | DEVICE | --src IMAGE}\n"
		    "diff [-o FILE] [--json] DUMP DUMP\n"
		    "start [-u UUID] {DESCRIPTOR | DIR | DEVICE}\n"
		    "drop [-u UUID] {DESCRIPTOR | DIR | DEVICE}",
	.options = options,
	.run = run,
};
