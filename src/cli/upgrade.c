/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* upgrade.c - ploop upgrade. */
#include <stdio.h>

#include <ploop/ploop.h>

#include "cli/call.h"
#include "cli/report.h"
#include "cli/verbs.h"

enum { OPTION_ALL = OPTION_OWN, OPTION_PROGRAM };

/* One that cannot is told, and the others go on. */
static int upgrade_all(const char *program)
{
	struct ploop_device *devices;
	struct ploop_error err;
	int status = PLOOP_EXIT_OK;
	size_t n;

	if (ploop_list(&devices, &n, &err) < 0)
		return report_error(&err);
	for (size_t i = 0; i < n; i++)
		if (devices[i].alive && ploop_upgrade(devices[i].device, program, &err) < 0)
			status = report_error(&err);
	ploop_list_free(devices, n);
	return status;
}

static int run(struct call *call)
{
	const char *device = NULL, *program = NULL;
	struct ploop_error err;
	bool all = false;
	int c;

	while ((c = call_option(call)) != CALL_END) {
		switch (c) {
		case 'd':
			device = call->value;
			break;
		case OPTION_ALL:
			all = true;
			break;
		case OPTION_PROGRAM:
			program = call->value;
			break;
		default:
			return PLOOP_EXIT_PARAM;
		}
	}
	if (call->noperands || (device != NULL) + all != 1)
		return call_usage(call, "give one of -d and --all");
	if (all)
		return upgrade_all(program);
	return ploop_upgrade(device, program, &err) < 0 ? report_error(&err) : PLOOP_EXIT_OK;
}

static const struct verb_option options[] = {
	{ 'd', "device", "DEVICE", "the device, /dev/ploopN" },
	{ OPTION_ALL, "all", NULL, "all devices" },
	{ OPTION_PROGRAM, "program", "FILE", "the ploopd that is to serve; else the installed one" },
	{ 0 },
};

const struct verb verb_upgrade = {
	.name = "upgrade",
	.group = "Devices",
	.summary = "let another ploopd serve a device that is in use",
	.synopsis = "[--program FILE] {-d DEVICE | --all}",
	.details = "Who uses the device sees a short pause. Refused while a long operation is under way on it.",
	.options = options,
	.run = run,
};
