/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* version.c - `ploop version`. */
#include <stdio.h>

#include "cli/call.h"
#include "cli/json.h"
#include "cli/verbs.h"

static int run(struct call *call)
{
	struct json_object *object;
	bool json = false;
	int c;

	while ((c = call_option(call)) != CALL_END) {
		if (c != OPTION_JSON)
			return PLOOP_EXIT_PARAM;
		json = true;
	}
	if (call->noperands)
		return call_usage(call, "takes no operands");
	if (!json) {
		printf("ploop %s\n", ploop_version());
		return PLOOP_EXIT_OK;
	}
	object = json_object_new_object();
	json_add_text(object, "version", ploop_version());
	return json_print(object);
}

static const struct verb_option options[] = {
	VERB_OPTION_JSON,
	{ 0 },
};

const struct verb verb_version = {
	.name = "version",
	.group = "About",
	.summary = "print the version of ploop",
	.synopsis = "[--json]",
	.options = options,
	.flags = VERB_BARE,
	.run = run,
};
