/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* info.c - `ploop info`: the size of a disk, who serves it, and how full its file system is. */
#include <stdio.h>

#include "base/log.h"
#include "cli/call.h"
#include "cli/files.h"
#include "cli/json.h"
#include "cli/report.h"
#include "cli/size.h"
#include "cli/verbs.h"

enum {
	OPTION_REPORT = OPTION_OWN,
};

struct info_call {
	struct files files;
	bool spec, device, report, json;
};

static void add_fs(struct json_object *object, const struct ploop_fs *fs)
{
	struct json_object *entry;

	if (!fs->type) {
		json_add_text(object, "file_system", NULL);
		return;
	}
	entry = json_object_new_object();
	json_object_object_add(object, "file_system", entry);
	json_add_text(entry, "type", fs->type);
	json_add_number(entry, "block_size", fs->block);
	json_add_number(entry, "size", fs->blocks * fs->block);
	json_add_number(entry, "free", fs->blocks_free * fs->block);
	json_add_number(entry, "inodes", fs->inodes);
	json_add_number(entry, "inodes_free", fs->inodes_free);
	json_add_bool(entry, "approximate", fs->approximate);
}

static void add_image(struct json_object *list, const struct ploop_image *image)
{
	struct json_object *entry = json_list_add(list);

	json_add_text(entry, "file", image->file);
	json_add_text(entry, "uuid", image->uuid);
	json_add_bool(entry, "temporary", image->temporary);
	json_add_text(entry, "format", image->format);
	json_add_number(entry, "version", image->version);
	json_add_number(entry, "size", image->size);
	json_add_number(entry, "length", image->length);
	json_add_number(entry, "allocated", image->allocated);
	json_add_bool(entry, "in_use", image->in_use);
}

static int print_json(const struct ploop_info *info)
{
	struct json_object *object = json_object_new_object(), *list;

	json_add_text(object, "descriptor", info->descriptor);
	json_add_number(object, "size", info->size);
	json_add_number(object, "cluster", info->cluster);
	json_add_number(object, "version", info->version);
	json_add_bool(object, "encrypted", info->encrypted);
	json_add_text(object, "device", info->device);
	json_add_text(object, "partition", info->partition);
	if (info->mapped_known)
		json_add_number(object, "mapped", info->mapped);
	else
		json_add_text(object, "mapped", NULL);
	json_add_number(object, "allocated", info->allocated);
	if (info->space_known) {
		json_add_number(object, "reclaimable", info->reclaimable);
		json_add_number(object, "balloon", info->balloon);
	} else {
		json_add_text(object, "reclaimable", NULL);
		json_add_text(object, "balloon", NULL);
	}
	add_fs(object, &info->fs);
	list = json_add_list(object, "images");
	for (unsigned i = 0; i < info->nimages; i++)
		add_image(list, &info->images[i]);
	list = json_add_list(object, "other_images");
	for (unsigned i = 0; i < info->nothers; i++)
		add_image(list, &info->others[i]);
	return json_print(object);
}

/* The three lines of the original, which scripts take apart. */
static int print_fs(const struct ploop_info *info)
{
	const struct ploop_fs *fs = &info->fs;

	if (!fs->type)
		return report_error(&info->fs_error);
	if (fs->approximate)
		log_warning("The file system was not unmounted cleanly: these numbers are from before");
	printf("%11s %14s %14s\n", "resource", "Size", "Used");
	printf("%11s %14llu %14llu\n", "1k-blocks", (unsigned long long)(fs->blocks * fs->block / 1024),
	       (unsigned long long)((fs->blocks - fs->blocks_free) * fs->block / 1024));
	printf("%11s %14llu %14llu\n", "inodes", (unsigned long long)fs->inodes,
	       (unsigned long long)(fs->inodes - fs->inodes_free));
	return PLOOP_EXIT_OK;
}

static void print_size(const char *what, bool known, uint64_t bytes, const char *note)
{
	char text[SIZE_TEXT];

	printf("%-14s %12s%s%s\n", what, known ? size_format(bytes, text) : "not known", *note ? "  " : "", note);
}

static void print_image(const struct ploop_image *image, const char *where)
{
	char length[SIZE_TEXT], allocated[SIZE_TEXT];

	printf("%-8s %-12s %10s %10s  %s%s%s\n", where, image->version == 1 ? "ploop1 v1" : image->format,
	       size_format(image->length, length), size_format(image->allocated, allocated), image->file,
	       image->temporary ? "  (temporary)" : "", image->in_use ? "  (in use)" : "");
}

/* All of it, for a person. */
static int print_report(const struct ploop_info *info)
{
	const struct ploop_fs *fs = &info->fs;
	uint64_t used = (fs->blocks - fs->blocks_free) * fs->block;
	char text[64];

	print_size("size", true, info->size, info->device ? info->device : "not mounted");
	print_size("cluster", true, info->cluster, "");
	print_size("mapped", info->mapped_known, info->mapped, "of the disk lie in a file");
	print_size("on host", true, info->allocated, "that all files take");
	print_size("reclaimable", info->space_known, info->reclaimable, "of that hold nothing the file system uses");
	print_size("balloon", info->space_known, info->balloon, "");
	if (fs->type) {
		snprintf(text, sizeof(text), "%s%s", fs->type,
			 fs->approximate ? ", as it was before it was left uncleanly" : "");
		print_size("file system", true, fs->blocks * fs->block, text);
		print_size("  used", true, used, "");
		printf("%-14s %12llu  of %llu used\n", "  inodes", (unsigned long long)(fs->inodes - fs->inodes_free),
		       (unsigned long long)fs->inodes);
	}
	printf("\n%-8s %-12s %10s %10s  %s\n", "LEVEL", "FORMAT", "LENGTH", "ON HOST", "FILE");
	for (unsigned i = info->nimages; i-- > 0;) {
		snprintf(text, sizeof(text), "%u", i);
		print_image(&info->images[i], text);
	}
	for (unsigned i = 0; i < info->nothers; i++)
		print_image(&info->others[i], "other");
	return PLOOP_EXIT_OK;
}

static int print(const struct info_call *own, const struct ploop_info *info)
{
	if (own->json)
		return print_json(info);
	if (own->report)
		return print_report(info);
	if (!own->spec && !own->device)
		return print_fs(info);
	if (own->spec)
		printf("size:\t\t%llu\nblocksize:\t%u\nfmt_version:\t%u\n",
		       (unsigned long long)(info->size / SIZE_SECTORS), info->cluster / SIZE_SECTORS, info->version);
	if (own->device)
		printf("device:\t\t%s\n", info->device ? info->device : "");
	if (own->device && info->partition)
		printf("partition:\t%s\n", info->partition);
	return PLOOP_EXIT_OK;
}

static int show(const struct info_call *own)
{
	unsigned what = own->device ? PLOOP_INFO_DEVICE : PLOOP_INFO_IMAGES;
	struct ploop_error err;
	struct ploop_info info;
	int status;

	if (own->json || own->report || (!own->spec && !own->device))
		what = PLOOP_INFO_CONTENT;
	if (ploop_info(&own->files.files, what, &info, &err) < 0)
		return report_error(&err);
	status = print(own, &info);
	ploop_info_clear(&info);
	return status;
}

static int run(struct call *call)
{
	struct info_call own = { 0 };
	struct ploop_error err;
	int c, r;

	while ((c = call_option(call)) != CALL_END) {
		switch (c) {
		case 's':
			own.spec = true;
			break;
		case 'd':
			own.device = true;
			break;
		case OPTION_REPORT:
			own.report = true;
			break;
		case OPTION_JSON:
			own.json = true;
			break;
		default:
			r = files_option(&own.files, c, call->value, &err);
			if (r < 0)
				return call_usage_error(call, &err);
			if (!r)
				return PLOOP_EXIT_PARAM;
		}
	}
	if (files_operands(&own.files, call))
		return PLOOP_EXIT_PARAM;
	return show(&own);
}

static const struct verb_option options[] = {
	{ 's', "spec", NULL, "size and cluster in sectors, and the version of the format" },
	{ 'd', "device", NULL, "the device that serves it; an empty name when it is not mounted" },
	{ OPTION_REPORT, "report", NULL,
	  "all of it: sizes, what is taken on the host and what could be given back, every file" },
	FILES_OPTIONS,
	VERB_OPTION_JSON,
	{ 0 },
};

const struct verb verb_info = {
	.name = "info",
	.group = "Look",
	.summary = "tell the size of a disk and how full its file system is",
	.synopsis =
		"[-s] [-d] [-u UUID] [--json] DESCRIPTOR\n[-s] [-d] [-f raw] [-b BLOCKSIZE] [--json] BASE [DELTA..]",
	.details = "Without -s and -d: blocks of 1 KiB and inodes of the file system, all and used. Nothing is mounted "
		   "for it:\n"
		   "they come from the superblock of a disk that is not mounted.\n",
	.options = options,
	.run = run,
};
