/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* snapshot-list.c - `ploop snapshot-list`: the table of the original, JSON, or a tree. */
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "cli/arg.h"
#include "cli/call.h"
#include "cli/json.h"
#include "cli/report.h"
#include "cli/size.h"
#include "cli/verbs.h"

#define COLUMNS 16 /* most that -o takes */

enum {
	OPTION_TREE = OPTION_OWN,
};

struct view {
	struct ploop_snapshot_info *all;
	size_t n;
	bool *shown;
	const struct ploop_snapshot_info *marked; /* the one with the star */
};

struct arguments {
	const char *output;
	char uuid[ARG_UUID];
	bool no_header, snapshots, json, tree;
};

struct column {
	const char *name, *header;
	int width;
	const char *(*text)(const struct view *view, const struct ploop_snapshot_info *snapshot);
};

static const char *text_parent(const struct view *view, const struct ploop_snapshot_info *snapshot)
{
	(void)view;
	return snapshot->parent;
}

static const char *text_current(const struct view *view, const struct ploop_snapshot_info *snapshot)
{
	return view->marked == snapshot ? "*" : "";
}

static const char *text_uuid(const struct view *view, const struct ploop_snapshot_info *snapshot)
{
	(void)view;
	return snapshot->uuid;
}

static const char *text_file(const struct view *view, const struct ploop_snapshot_info *snapshot)
{
	(void)view;
	return snapshot->file ? snapshot->file : "";
}

/* Who has it: a component, a device, or for a temporary one that nobody has a dash. */
static const char *text_owner(const struct view *view, const struct ploop_snapshot_info *snapshot)
{
	(void)view;
	if (snapshot->owner)
		return snapshot->owner;
	return snapshot->device ? snapshot->device : snapshot->temporary ? "-" : "";
}

static const char *text_temporary(const struct view *view, const struct ploop_snapshot_info *snapshot)
{
	(void)view;
	return snapshot->temporary ? "t" : "";
}

static const char *text_size(const struct view *view, const struct ploop_snapshot_info *snapshot)
{
	static char text[SIZE_TEXT];

	(void)view;
	return size_format(snapshot->allocated, text);
}

static const struct column columns[] = {
	{ "parent_uuid", "PARENT_UUID", 38, text_parent },
	{ "current", "C", 1, text_current },
	{ "uuid", "UUID", 38, text_uuid },
	{ "fname", "FNAME", 32, text_file },
	{ "temporary", "T", 1, text_temporary },
	{ "owner", "OWNER", 16, text_owner },
	{ "size", "SIZE", 10, text_size },
};

static int parse_columns(const char *output, const struct column *ret[COLUMNS], unsigned *ret_n, struct ploop_error *err)
{
	unsigned n = 0;

	for (const char *word = output, *end; word; word = *end ? end + 1 : NULL) {
		size_t len = strcspn(word, ",");
		unsigned i;

		end = word + len;
		for (i = 0; i < ARRAY_SIZE(columns); i++)
			if (strlen(columns[i].name) == len && !strncmp(columns[i].name, word, len))
				break;
		if (i == ARRAY_SIZE(columns) || n == COLUMNS)
			return error_set(err, -EINVAL, 1, "Unknown field: %.*s", (int)len, word);
		ret[n++] = &columns[i];
	}
	*ret_n = n;
	return 0;
}

static struct ploop_snapshot_info *find(const struct view *view, const char *uuid)
{
	for (size_t i = 0; i < view->n; i++)
		if (!strcasecmp(view->all[i].uuid, uuid))
			return &view->all[i];
	return NULL;
}

/* With -u: it and its ancestors. With -s: the top is not shown, and what it lies on has the star. */
static int select_shown(struct view *view, const struct arguments *arguments, struct ploop_error *err)
{
	const struct ploop_snapshot_info *at = *arguments->uuid ? find(view, arguments->uuid) : NULL;

	if (*arguments->uuid && !at)
		return error_set(err, -ENOENT, 1, "Can't find snapshot by uuid %s", arguments->uuid);
	for (size_t i = 0; i < view->n; i++) {
		view->shown[i] = !at;
		if (view->all[i].top)
			view->marked = &view->all[i];
	}
	for (; at && !view->shown[at - view->all]; at = find(view, at->parent))
		view->shown[at - view->all] = true;
	if (arguments->snapshots && view->marked) {
		view->shown[view->marked - view->all] = false;
		view->marked = find(view, view->marked->parent);
	}
	return 0;
}

static void print_cell(const struct column *column, bool last, const char *text)
{
	if (last)
		printf("%s\n", text);
	else
		printf("%-*s ", column->width, text);
}

static void print_table(const struct view *view, const struct column *const *chosen, unsigned n, bool header)
{
	for (unsigned c = 0; c < n && header; c++)
		print_cell(chosen[c], c == n - 1, chosen[c]->header);
	for (size_t i = 0; i < view->n; i++)
		for (unsigned c = 0; c < n && view->shown[i]; c++)
			print_cell(chosen[c], c == n - 1, chosen[c]->text(view, &view->all[i]));
}

static int print_json(const struct view *view)
{
	struct json_object *object = json_object_new_object();
	struct json_object *list = json_add_list(object, "snapshots");

	for (size_t i = 0; i < view->n; i++) {
		const struct ploop_snapshot_info *snapshot = &view->all[i];
		struct json_object *one;

		if (!view->shown[i])
			continue;
		one = json_list_add(list);
		json_add_text(one, "uuid", snapshot->uuid);
		json_add_text(one, "parent_uuid", find(view, snapshot->parent) ? snapshot->parent : NULL);
		json_add_bool(one, "current", view->marked == snapshot);
		json_add_text(one, "file", snapshot->file);
		json_add_bool(one, "temporary", snapshot->temporary);
		json_add_number(one, "children", snapshot->children);
		json_add_bool(one, "missing", !snapshot->there);
		json_add_number(one, "length", snapshot->length);
		json_add_number(one, "allocated", snapshot->allocated);
		json_add_number(one, "modified", snapshot->modified);
		json_add_text(one, "device", snapshot->device);
		json_add_text(one, "owner", snapshot->owner);
	}
	return json_print(object);
}

static void print_node(const struct view *view, const struct ploop_snapshot_info *snapshot)
{
	char size[SIZE_TEXT], date[32] = "";
	time_t modified = (time_t)snapshot->modified;
	struct tm local;

	if (modified && localtime_r(&modified, &local))
		strftime(date, sizeof(date), "%Y-%m-%d %H:%M", &local);
	printf("%s%s  %s  %s%s%s%s%s\n", snapshot->uuid, view->marked == snapshot ? " *" : "",
	       size_format(snapshot->allocated, size), snapshot->there ? date : "missing",
	       snapshot->temporary ? "  temporary" : "", snapshot->device ? "  " : "",
	       snapshot->device ? snapshot->device : "",
	       snapshot->temporary && !snapshot->device ? ", nobody uses it" : "");
}

/* Depth first. A chain of one child each goes straight down, so that 126 of them still fit a screen's width. */
static void print_tree(const struct view *view, const struct ploop_snapshot_info *at, const char *lead)
{
	size_t left = 0;

	for (size_t i = 0; i < view->n; i++)
		left += view->shown[i] && !strcasecmp(view->all[i].parent, at->uuid);
	for (size_t i = 0, children = left; i < view->n; i++) {
		char below[512];

		if (!view->shown[i] || strcasecmp(view->all[i].parent, at->uuid))
			continue;
		left--;
		printf("%s%s", lead, children == 1 ? "" : left ? "|-- " : "`-- ");
		print_node(view, &view->all[i]);
		snprintf(below, sizeof(below), "%s%s", lead, children == 1 ? "" : left ? "|   " : "    ");
		print_tree(view, &view->all[i], below);
	}
}

static int print_trees(const struct view *view)
{
	for (size_t i = 0; i < view->n; i++) {
		const struct ploop_snapshot_info *parent = find(view, view->all[i].parent);

		if (!view->shown[i] || (parent && view->shown[parent - view->all]))
			continue;
		print_node(view, &view->all[i]);
		print_tree(view, &view->all[i], "");
	}
	return PLOOP_EXIT_OK;
}

static int show(struct view *view, const struct arguments *arguments)
{
	const struct column *chosen[COLUMNS];
	struct ploop_error err;
	unsigned n = 0;

	if (parse_columns(arguments->output, chosen, &n, &err) < 0 || select_shown(view, arguments, &err) < 0)
		return report_error(&err);
	if (arguments->json)
		return print_json(view);
	if (arguments->tree)
		return print_trees(view);
	print_table(view, chosen, n, !arguments->no_header);
	return PLOOP_EXIT_OK;
}

/* Returns CALL_END, or the exit status: 1, as the original has it. */
static int take_options(struct call *call, struct arguments *arguments)
{
	struct ploop_error err;
	int c;

	while ((c = call_option(call)) != CALL_END) {
		switch (c) {
		case 'H':
			arguments->no_header = true;
			break;
		case 'o':
			arguments->output = call->value;
			break;
		case 'u':
			if (arg_uuid(call->value, arguments->uuid, &err) == 0)
				break;
			call_usage_error(call, &err);
			return 1;
		case 's':
			arguments->snapshots = true;
			break;
		case OPTION_JSON:
			arguments->json = true;
			break;
		case OPTION_TREE:
			arguments->tree = true;
			break;
		default:
			return 1;
		}
	}
	return CALL_END;
}

static int run(struct call *call)
{
	struct arguments arguments = { .output = "parent_uuid,current,uuid,fname" };
	struct view view = { 0 };
	struct ploop_error err;
	int status = take_options(call, &arguments);

	if (status != CALL_END)
		return status;
	if (call->noperands != 1) {
		call_usage(call, "give one DiskDescriptor.xml");
		return 1;
	}
	if (ploop_snapshots(call->operands[0], &view.all, &view.n, &err) < 0) {
		report_error(&err);
		return 1;
	}
	view.shown = calloc(view.n + 1, sizeof(*view.shown));
	status = view.shown ? show(&view, &arguments) : PLOOP_EXIT_MALLOC;
	free(view.shown);
	ploop_snapshots_free(view.all, view.n);
	return status;
}

static const struct verb_option options[] = {
	{ 'H', "no-header", NULL, "no line with the names of the columns" },
	{ 'o', "output", "COLUMNS", "these columns: parent_uuid,current,uuid,fname,temporary,owner,size" },
	{ 'u', "uuid", "UUID", "this snapshot and those it is made on" },
	{ 'u', "id", "UUID", NULL },
	{ 's', "snapshot", NULL, "only snapshots, not what is written now" },
	{ OPTION_TREE, "tree", NULL, "who is made on whom, with sizes, dates and users" },
	VERB_OPTION_JSON,
	{ 0 },
};

const struct verb verb_snapshot_list = {
	.name = "snapshot-list",
	.group = "Snapshots",
	.summary = "list the snapshots of a disk",
	.synopsis = "[-Hs] [-o COLUMNS] [-u UUID] [--tree | --json] DESCRIPTOR",
	.options = options,
	.run = run,
};
