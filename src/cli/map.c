/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* map.c - `ploop map`: how the clusters of a disk lie in its files, in numbers and as a picture. */
#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "cli/call.h"
#include "cli/files.h"
#include "cli/json.h"
#include "cli/map-view.h"
#include "cli/report.h"
#include "cli/size.h"
#include "cli/verbs.h"

#define LOOKS 5

enum {
	OPTION_SVG = OPTION_OWN,
	OPTION_EXTENTS,
};

struct map_call {
	struct files files;
	const char *svg;
	bool extents, json;
};

static void json_extents(struct json_object *object, struct ploop_disk *disk)
{
	struct json_object *list = json_add_list(object, "extents");
	struct ploop_extent extent;

	for (uint64_t at = 0; ploop_disk_extent(disk, at, &extent); at = extent.offset + extent.length) {
		struct json_object *entry = json_list_add(list);

		json_add_number(entry, "offset", extent.offset);
		json_add_number(entry, "length", extent.length);
		json_add_bool(entry, "mapped", extent.mapped);
		if (extent.mapped) {
			json_add_number(entry, "level", extent.level);
			json_add_number(entry, "file_offset", extent.file_offset);
			json_add_bool(entry, "partial", extent.partial);
		}
	}
}

static int print_json(const struct map_view *view, struct ploop_disk *disk, bool extents)
{
	struct json_object *object = json_object_new_object(), *list;

	json_add_number(object, "size", view->size);
	json_add_number(object, "cluster", view->cluster);
	json_add_number(object, "mapped", view->mapped);
	json_add_number(object, "pieces", view->pieces);
	list = json_add_list(object, "levels");
	for (unsigned i = 0; i < view->nlevels; i++) {
		const struct map_level_view *file = &view->levels[i];
		struct json_object *entry = json_list_add(list);

		json_add_number(entry, "level", i);
		json_add_text(entry, "file", file->level.path);
		json_add_text(entry, "format", file->level.format);
		json_add_number(entry, "version", file->level.version);
		json_add_number(entry, "length", file->level.length);
		json_add_number(entry, "allocated", file->level.allocated);
		json_add_number(entry, "mapped", file->mapped);
		json_add_number(entry, "pieces", file->pieces);
	}
	if (extents)
		json_extents(object, disk);
	return json_print(object);
}

static void print_extents(struct ploop_disk *disk)
{
	struct ploop_extent extent;

	printf("\n%16s %16s %5s %16s\n", "OFFSET", "LENGTH", "LEVEL", "FILE OFFSET");
	for (uint64_t at = 0; ploop_disk_extent(disk, at, &extent); at = extent.offset + extent.length) {
		printf("%16llu %16llu ", (unsigned long long)extent.offset, (unsigned long long)extent.length);
		if (extent.mapped)
			printf("%5u %16llu%s\n", extent.level, (unsigned long long)extent.file_offset,
			       extent.partial ? "  partly in the top" : "");
		else
			printf("%5s %16s\n", "-", "-");
	}
}

static void print_text(const struct map_view *view)
{
	char size[SIZE_TEXT], cluster[SIZE_TEXT], mapped[SIZE_TEXT], length[SIZE_TEXT], allocated[SIZE_TEXT];

	printf("%s in clusters of %s; %s (%.1f %%) mapped, in %llu pieces\n\n", size_format(view->size, size),
	       size_format(view->cluster, cluster), size_format(view->mapped, mapped),
	       100.0 * (double)view->mapped / (double)view->size, (unsigned long long)view->pieces);
	printf("%5s %10s %8s %10s %10s  %s\n", "LEVEL", "MAPPED", "PIECES", "LENGTH", "ON HOST", "FILE");
	for (unsigned i = view->nlevels; i-- > 0;) {
		const struct map_level_view *file = &view->levels[i];

		printf("%5u %10s %8llu %10s %10s  %s\n", i, size_format(file->mapped, mapped),
		       (unsigned long long)file->pieces, size_format(file->level.length, length),
		       size_format(file->level.allocated, allocated), file->level.path);
	}
	printf("\nFrom start to end of the disk, %s a character: the level, or . where nothing is mapped.\n",
	       size_format((view->size + view->cells - 1) / view->cells, length));
	map_draw_text(view, stdout);
}

static int show(const struct map_call *own, struct ploop_disk *disk, struct ploop_error *err)
{
	struct map_view *view;
	int status = PLOOP_EXIT_OK;

	if (map_view_new(disk, &view, err) < 0)
		return report_error(err);
	if (own->svg && map_draw_svg(view, own->svg, err) < 0) {
		status = report_error(err);
	} else if (own->json) {
		status = print_json(view, disk, own->extents);
	} else {
		print_text(view);
		if (own->extents)
			print_extents(disk);
	}
	map_view_free(view);
	return status;
}

/* A disk in use is shown as it was flushed last. Its index may be written while it is read: a second look is another one. */
static int open_disk(struct ploop_files *files, struct ploop_disk **ret, struct ploop_error *err)
{
	int r = ploop_disk_open(files, ret, err);

	if (r != -EBUSY)
		return r;
	log_warning("The disk is in use: this is how it was flushed last");
	files->in_use = true;
	for (unsigned i = 0; i < LOOKS; i++) {
		r = ploop_disk_open(files, ret, err);
		if (r != -EUCLEAN)
			break;
	}
	return r;
}

static int run(struct call *call)
{
	struct map_call own = { 0 };
	struct ploop_error err = { 0 };
	struct ploop_disk *disk;
	int c, status;

	while ((c = call_option(call)) != CALL_END) {
		if (c == CALL_BAD)
			return PLOOP_EXIT_PARAM;
		if (c == OPTION_SVG)
			own.svg = call->value;
		else if (c == OPTION_EXTENTS)
			own.extents = true;
		else if (c == OPTION_JSON)
			own.json = true;
		else if (files_option(&own.files, c, call->value, &err) < 0)
			return call_usage_error(call, &err);
	}
	if (files_operands(&own.files, call))
		return PLOOP_EXIT_PARAM;
	if (open_disk(&own.files.files, &disk, &err) < 0)
		return report_error(&err);
	status = show(&own, disk, &err);
	ploop_disk_close(disk);
	return status;
}

static const struct verb_option options[] = {
	{ OPTION_SVG, "svg", "FILE", "also draw a picture of the disk and its files" },
	{ OPTION_EXTENTS, "extents", NULL, "also list every piece" },
	FILES_OPTIONS,
	VERB_OPTION_JSON,
	{ 0 },
};

const struct verb verb_map = {
	.name = "map",
	.group = "Look",
	.summary = "show how the clusters of a disk lie in its files",
	.synopsis = "[OPTIONS] DiskDescriptor.xml\n[OPTIONS] BASE [.. TOP]",
	.details = "Nothing is written to the files. A disk that is in use is shown as it was flushed last.\n",
	.options = options,
	.run = run,
};
