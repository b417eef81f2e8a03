/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* resize.c - `ploop resize`: a disk, its partition and its file system become larger or smaller. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/log.h"
#include "cli/call.h"
#include "cli/json.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/size.h"
#include "cli/verbs.h"

enum {
	OPTION_INFO = OPTION_OWN,
	OPTION_OFFLINE,
};

struct arguments {
	struct ploop_resize resize;
	enum progress_mode progress;
	uint64_t inodes;
	bool sized, info, json;
};

static int take_option(struct arguments *own, int option, const char *value, struct ploop_error *err)
{
	switch (option) {
	case 's':
		own->sized = true;
		return size_parse(value, "-s", SIZE_SECTORS, &own->resize.size, err);
	case 'N':
		if (number_parse(value, "-N", UINT32_MAX, &own->inodes, err) == 0 && !own->inodes)
			return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "ERROR: Invalid argument for option -N: %s", value);
		return own->inodes ? 0 : -EINVAL;
	case 'o': /* as if it were in use: for hosts where that is all there is */
		return 0;
	case 'p': /* the namespace of a container: all of them are looked into */
		return 0;
	case OPTION_OFFLINE:
		own->resize.flags |= PLOOP_RESIZE_OFFLINE;
		return 0;
	case OPTION_INFO:
		own->info = true;
		return 0;
	case OPTION_JSON:
		own->json = true;
		return 0;
	default:
		return progress_parse(value, &own->progress, err);
	}
}

/* ---- --info ---- */

static int print_info_json(const struct ploop_resize_info *info)
{
	struct json_object *object = json_object_new_object();

	json_add_number(object, "size", info->size);
	json_add_number(object, "blocksize", info->cluster);
	json_add_text(object, "device", *info->device ? info->device : NULL);
	json_add_number(object, "partition", info->partition);
	json_add_number(object, "start", info->start);
	json_add_number(object, "end", info->end);
	json_add_text(object, "fs", info->fs);
	json_add_number(object, "fs_size", info->fs_size);
	json_add_number(object, "fs_block", info->fs_block);
	json_add_number(object, "inodes", info->inodes);
	json_add_number(object, "bytes_per_inode", info->bytes_per_inode);
	if (info->minimum_known)
		json_add_number(object, "minimum", info->minimum);
	else
		json_object_object_add(object, "minimum", NULL);
	json_add_text(object, "minimum_why", info->minimum_why);
	json_add_number(object, "maximum", info->maximum);
	json_add_text(object, "maximum_why", info->maximum_why);
	return json_print(object);
}

static void print_size(const char *name, uint64_t bytes, const char *why)
{
	char text[SIZE_TEXT];

	printf("%s:\t%" PRIu64 " sectors (%s)%s%s\n", name, bytes / SIZE_SECTORS, size_format(bytes, text),
	       *why ? ": " : "", why);
}

static int print_info(const struct ploop_resize_info *info)
{
	print_size("size", info->size, "");
	if (info->minimum_known)
		print_size("minimum", info->minimum, info->minimum_why);
	else
		printf("minimum:\tnot known: %s\n", info->minimum_why);
	print_size("maximum", info->maximum, info->maximum_why);
	if (info->fs)
		print_size(info->fs, info->fs_size, "");
	else
		printf("fs:\tnone that is known\n");
	if (info->bytes_per_inode)
		printf("inodes:\t%" PRIu64 ", and one more for every %" PRIu64 " bytes that it grows\n", info->inodes,
		       info->bytes_per_inode);
	return PLOOP_EXIT_OK;
}

static int show(const struct arguments *own)
{
	struct ploop_resize_info info;
	struct ploop_error err;

	if (ploop_resize_info(own->resize.disk, &info, &err) < 0)
		return report_error(&err);
	return own->json ? print_info_json(&info) : print_info(&info);
}

/* ---- -N: what cannot be done, and what can ---- */

static void ways_to_inodes(const struct arguments *own, const struct ploop_resize_info *info, struct ploop_error *err)
{
	uint64_t size = round_up(own->inodes * info->bytes_per_inode + info->size - info->fs_size, UINT64_C(1) << 30);
	char grow[256] = "";

	if (size <= info->maximum)
		snprintf(grow, sizeof(grow), "make it larger, `ploop resize -s %" PRIu64 "G %.150s`, or ", size >> 30,
			 own->resize.disk);
	error_set(err, -EOPNOTSUPP, PLOOP_EXIT_PARAM,
		  "-N: %s has one inode for every %" PRIu64 " bytes since it was made, %" PRIu64 " in all, and that stays so; to have "
		  "%" PRIu64 " of them %scopy it into a new disk: `ploop mount -r -m DIR %s` and `ploop init -s %" PRIu64 " -N %" PRIu64
		  " --from DIR NEW/root.hds`",
		  info->fs, info->bytes_per_inode, info->inodes, own->inodes, grow, own->resize.disk,
		  info->size / SIZE_SECTORS, own->inodes);
}

static int refuse_inodes(const struct arguments *own)
{
	struct ploop_resize_info info;
	struct ploop_error err;

	if (ploop_resize_info(own->resize.disk, &info, &err) < 0)
		return report_error(&err);
	if (!info.bytes_per_inode)
		error_set(&err, -EOPNOTSUPP, PLOOP_EXIT_PARAM, "-N: %s",
			  info.fs ? "XFS makes its inodes when they are needed" : "there is no file system that is known");
	else if (own->inodes <= info.inodes)
		error_set(&err, -EINVAL, PLOOP_EXIT_PARAM, "-N: %s has %" PRIu64 " inodes already", own->resize.disk,
			  info.inodes);
	else
		ways_to_inodes(own, &info, &err);
	return report_error(&err);
}

/* ---- -s ---- */

static int print_result(const struct arguments *own, const struct ploop_resized *result)
{
	struct json_object *object;

	char text[SIZE_TEXT];

	if (!own->json) {
		log_write(LOG_LEVEL_RESULT, "%s: %" PRIu64 " sectors, %s of %s", own->resize.disk, result->size / SIZE_SECTORS,
			  result->fs ? result->fs : "nothing that is known",
			  size_format(result->fs ? result->fs_size : result->size, text));
		return PLOOP_EXIT_OK;
	}
	object = json_object_new_object();
	json_add_number(object, "size", result->size);
	json_add_text(object, "fs", result->fs);
	json_add_number(object, "fs_size", result->fs_size);
	json_add_bool(object, "disk_larger", result->disk_larger);
	json_add_bool(object, "ballooned", result->ballooned);
	return json_print(object);
}

static int resize(struct arguments *own)
{
	struct ploop_resized result;
	struct progress progress;
	struct ploop_error err;
	int r;

	own->resize.progress = progress_report;
	own->resize.progress_data = &progress;
	progress_start(&progress, own->progress);
	r = ploop_resize(&own->resize, &result, &err);
	progress_end(&progress);
	return r < 0 ? report_error(&err) : print_result(own, &result);
}

static int run(struct call *call)
{
	struct arguments own = { .progress = PROGRESS_AUTO };
	struct ploop_error err;
	int c;

	while ((c = call_option(call)) != CALL_END) {
		if (c == CALL_BAD)
			return PLOOP_EXIT_PARAM;
		if (take_option(&own, c, call->value, &err) < 0)
			return call_usage_error(call, &err);
	}
	if (own.json)
		report_aside();
	if (call->noperands != 1)
		return call_usage(call, "give one DiskDescriptor.xml, or its folder");
	own.resize.disk = call->operands[0];
	if (own.inodes)
		return refuse_inodes(&own);
	if (own.info)
		return show(&own);
	return own.sized ? resize(&own) : call_usage(call, "give the size with -s, or --info");
}

static const struct verb_option options[] = {
	{ 's', "size", "SIZE", "new size of the disk; K, M, G, T, or sectors" },
	{ OPTION_INFO, "info", NULL, "tell how small and how large it can become, and change nothing" },
	{ OPTION_OFFLINE, "offline", NULL, "refuse when the disk is in use" },
	{ 'N', "inodes", "N", "refused, with what can be done to have so many inodes" },
	{ 'o', "online", NULL, NULL },
	{ 'p', "pid", "PID", NULL },
	VERB_OPTION_JSON,
	VERB_OPTION_PROGRESS,
	{ 0 },
};

const struct verb verb_resize = {
	.name = "resize",
	.group = "Disks",
	.summary = "make a disk and its file system larger or smaller",
	.synopsis = "-s SIZE [--offline] [--json] DESCRIPTOR\n--info [--json] DESCRIPTOR",
	.details = "Images, device, partition table, last partition and the file system in it (ext4; XFS only larger).\n"
		   "A disk in use becomes larger under whoever uses it.\n",
	.options = options,
	.run = run,
};
