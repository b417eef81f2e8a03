/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* repair-descriptor.c - `ploop repair-descriptor`: which of descriptor, files and device is behind, and away with it. */
#include <stdio.h>

#include "cli/call.h"
#include "cli/json.h"
#include "cli/report.h"
#include "cli/verbs.h"

enum {
	OPTION_DRY_RUN = OPTION_OWN,
};

static int print_json(const struct ploop_repair *items, size_t n)
{
	struct json_object *object = json_object_new_object();
	struct json_object *list = json_add_list(object, "findings");

	for (size_t i = 0; i < n; i++) {
		struct json_object *one = json_list_add(list);

		json_add_text(one, "behind", ploop_repair_side_name(items[i].behind));
		json_add_text(one, "text", items[i].text);
		json_add_text(one, "remedy", items[i].remedy);
		json_add_bool(one, "possible", items[i].possible);
		json_add_bool(one, "done", items[i].done);
	}
	return json_print(object);
}

static int show(const struct ploop_repair *items, size_t n, bool json, bool dry_run)
{
	int status = json ? print_json(items, n) : PLOOP_EXIT_OK;

	if (!n && !json)
		printf("descriptor, files and devices agree\n");
	for (size_t i = 0; i < n; i++) {
		if (!json)
			printf("%-10s %s\n           %s%s\n", ploop_repair_side_name(items[i].behind), items[i].text,
			       items[i].remedy, items[i].done ? ": done" : "");
		if (items[i].error.code)
			report_error(&items[i].error);
		if (!dry_run && !items[i].done)
			status = PLOOP_EXIT_DISKDESCR;
	}
	return status;
}

static int run(struct call *call)
{
	bool dry_run = false, json = false;
	struct ploop_repair *items;
	struct ploop_error err;
	int c, status;
	size_t n;

	while ((c = call_option(call)) != CALL_END) {
		switch (c) {
		case OPTION_DRY_RUN:
			dry_run = true;
			break;
		case OPTION_JSON:
			json = true;
			break;
		default:
			return PLOOP_EXIT_PARAM;
		}
	}
	if (call->noperands != 1)
		return call_usage(call, "give one DiskDescriptor.xml, or its folder");
	if (ploop_repair_descriptor(call->operands[0], dry_run, &items, &n, &err) < 0)
		return report_error(&err);
	status = show(items, n, json, dry_run);
	ploop_repair_free(items, n);
	return status;
}

static const struct verb_option options[] = {
	{ OPTION_DRY_RUN, "dry-run", NULL, "only say what is behind, and what puts it right" },
	VERB_OPTION_JSON,
	{ 0 },
};

const struct verb verb_repair_descriptor = {
	.name = "repair-descriptor",
	.group = "Disks",
	.summary = "bring descriptor, files and running device in line",
	.synopsis = "[--dry-run] [--json] {DESCRIPTOR | DIR}",
	.details = "Says which of the three is behind. Whatever needs a decision is told and left alone. A descriptor "
		   "that is lost\n"
		   "is made anew by restore-descriptor; files that nobody names are listed by gc.\n",
	.options = options,
	.run = run,
};
