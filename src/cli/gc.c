/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* gc.c - `ploop gc`: what is left over, and away with it. */
#include <stdio.h>

#include "cli/call.h"
#include "cli/json.h"
#include "cli/report.h"
#include "cli/size.h"
#include "cli/verbs.h"

enum {
	OPTION_REMOVE = OPTION_OWN,
	OPTION_DEVICES,
};

static int print_json(const struct ploop_leftover *items, size_t n)
{
	struct json_object *object = json_object_new_object();
	struct json_object *list = json_add_list(object, "leftovers");

	for (size_t i = 0; i < n; i++) {
		struct json_object *one = json_list_add(list);

		json_add_text(one, "kind", ploop_leftover_name(items[i].kind));
		json_add_text(one, "path", items[i].path);
		json_add_text(one, "parent", items[i].parent);
		json_add_number(one, "allocated", items[i].allocated);
		json_add_number(one, "modified", items[i].modified);
		json_add_bool(one, "removed", items[i].removed);
	}
	return json_print(object);
}

static void print_one(const struct ploop_leftover *item)
{
	char size[SIZE_TEXT] = "";

	printf("%-8s %s", ploop_leftover_name(item->kind), item->path);
	if (item->kind == PLOOP_LEFTOVER_DELTA)
		printf("  %s", size_format(item->allocated, size));
	if (item->parent)
		printf("  on %s?", item->parent);
	printf("%s\n", item->removed ? "  removed" : "");
}

static int show(struct ploop_leftover *items, size_t n, bool json)
{
	int status = PLOOP_EXIT_OK;

	if (json)
		status = print_json(items, n);
	for (size_t i = 0; i < n; i++) {
		if (!json)
			print_one(&items[i]);
		if (items[i].error.code)
			status = report_error(&items[i].error);
	}
	return status;
}

static int run(struct call *call)
{
	bool remove = false, devices = false, json = false;
	struct ploop_leftover *items;
	struct ploop_error err;
	int c, status;
	size_t n;

	while ((c = call_option(call)) != CALL_END) {
		switch (c) {
		case OPTION_REMOVE:
			remove = true;
			break;
		case OPTION_DEVICES:
			devices = true;
			break;
		case OPTION_JSON:
			json = true;
			break;
		default:
			return PLOOP_EXIT_PARAM;
		}
	}
	if (call->noperands + devices != 1)
		return call_usage(call, "give one DiskDescriptor.xml, or its folder, or --devices");
	if (ploop_gc(devices ? NULL : call->operands[0], remove, &items, &n, &err) < 0)
		return report_error(&err);
	status = show(items, n, json);
	ploop_leftovers_free(items, n);
	return status;
}

static const struct verb_option options[] = {
	{ OPTION_REMOVE, "remove", NULL, "remove what is listed" },
	{ OPTION_DEVICES, "devices", NULL, "dead devices, what is mounted of them, and names in /dev that lead nowhere" },
	VERB_OPTION_JSON,
	{ 0 },
};

const struct verb verb_gc = {
	.name = "gc",
	.group = "Snapshots",
	.summary = "find what interrupted operations left, and remove it",
	.synopsis = "[--remove] [--json] {DESCRIPTOR | DIR | --devices}",
	.details = "Lists deltas that no descriptor names (with the image that each seems to lie on), half-written files, "
		   "journals of\ninterrupted operations, locks without a descriptor.\n",
	.options = options,
	.run = run,
};
