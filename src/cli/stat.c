/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* stat.c - `ploop stat`. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/call.h"
#include "cli/json.h"
#include "cli/report.h"
#include "cli/verbs.h"

#define COUNTERS 256 /* lines that -l reads */

static int print(const char *device, bool json)
{
	struct ploop_counter *counters;
	struct json_object *object;
	struct ploop_error err;
	size_t n;

	if (ploop_counters(device, &counters, &n, &err) < 0)
		return report_error(&err);
	object = json ? json_object_new_object() : NULL;
	for (size_t i = 0; i < n; i++) {
		if (json)
			json_add_number(object, counters[i].name, counters[i].value);
		else
			printf("%-20s\t%" PRIu64 "\n", counters[i].name, counters[i].value);
	}
	free(counters);
	return json ? json_print(object) : PLOOP_EXIT_OK;
}

/* Lines of a name and a value on standard input. */
static int load(const char *device)
{
	static struct ploop_counter counters[COUNTERS];
	struct ploop_error err;
	char line[128];
	size_t n = 0;

	while (n < COUNTERS && fgets(line, sizeof(line), stdin))
		if (sscanf(line, "%31s %" SCNu64, counters[n].name, &counters[n].value) == 2)
			n++;
	if (ploop_counters_set(device, counters, n, &err) < 0)
		return report_error(&err);
	return PLOOP_EXIT_OK;
}

static int run(struct call *call)
{
	bool clear = false, from_input = false, json = false;
	const char *device = NULL;
	struct ploop_error err;
	int c;

	while ((c = call_option(call)) != CALL_END) {
		switch (c) {
		case 'd':
			device = call->value;
			break;
		case 'c':
			clear = true;
			break;
		case 'l':
			from_input = true;
			break;
		case OPTION_JSON:
			json = true;
			break;
		default:
			return PLOOP_EXIT_PARAM;
		}
	}
	if (!device || call->noperands || (clear && from_input))
		return call_usage(call, "give -d, and at most one of -c and -l");
	if (from_input)
		return load(device);
	if (clear)
		return ploop_counters_set(device, NULL, 0, &err) < 0 ? report_error(&err) : PLOOP_EXIT_OK;
	return print(device, json);
}

static const struct verb_option options[] = {
	{ 'd', "device", "DEVICE", "the device, /dev/ploopN" },
	{ 'c', "clear", NULL, "set all counters to 0" },
	{ 'l', "load", NULL, "set counters from lines \"name value\" on standard input" },
	VERB_OPTION_JSON,
	{ 0 },
};

const struct verb verb_stat = {
	.name = "stat",
	.group = "Look",
	.summary = "counters of a device",
	.synopsis = "[-c | -l | --json] -d DEVICE",
	.options = options,
	.run = run,
};
