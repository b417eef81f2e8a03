/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* modules.c - `ploop modules`: what this build and this host can do. */
#include <stdio.h>

#include "cli/call.h"
#include "cli/json.h"
#include "cli/verbs.h"

static const char *const family_titles[] = {
	[PLOOP_FAMILY_FORMAT] = "Formats",
	[PLOOP_FAMILY_IO] = "I/O modules",
	[PLOOP_FAMILY_EXPORT] = "Front ends",
};

static const char *const family_keys[] = {
	[PLOOP_FAMILY_FORMAT] = "format",
	[PLOOP_FAMILY_IO] = "io",
	[PLOOP_FAMILY_EXPORT] = "export",
};

static int print_json(void)
{
	struct json_object *object = json_object_new_object(), *list = json_add_list(object, "modules");
	struct ploop_module module;

	for (unsigned n = 0; ploop_module_get(n, &module); n++) {
		struct json_object *entry = json_list_add(list);

		json_add_text(entry, "family", family_keys[module.family]);
		json_add_text(entry, "name", module.name);
		json_add_text(entry, "summary", module.summary);
		json_add_bool(entry, "usable", module.usable);
		json_add_text(entry, "reason", module.usable ? NULL : module.reason);
	}
	return json_print(object);
}

static int print_text(void)
{
	struct ploop_module module;
	int family = -1;

	for (unsigned n = 0; ploop_module_get(n, &module); n++) {
		if ((int)module.family != family)
			printf("%s%s:\n", family < 0 ? "" : "\n", family_titles[module.family]);
		family = (int)module.family;
		printf("  %-8s %s\n", module.name, module.summary);
		if (!module.usable)
			printf("  %-8s not here: %s\n", "", module.reason);
	}
	return PLOOP_EXIT_OK;
}

static int run(struct call *call)
{
	bool json = false;
	int c;

	while ((c = call_option(call)) != CALL_END) {
		if (c != OPTION_JSON)
			return PLOOP_EXIT_PARAM;
		json = true;
	}
	if (call->noperands)
		return call_usage(call, "takes no operands");
	return json ? print_json() : print_text();
}

static const struct verb_option options[] = {
	VERB_OPTION_JSON,
	{ 0 },
};

const struct verb verb_modules = {
	.name = "modules",
	.group = "About",
	.summary = "list formats, I/O modules and front ends, and whether this host can use them",
	.synopsis = "[--json]",
	.options = options,
	.flags = VERB_BARE,
	.run = run,
};
