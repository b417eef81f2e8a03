/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * lowlevel.c - the original's verbs for single steps of a device: getdev, start, stop, clear, delete. Here a device is whole from mount
 * to umount, so these are what is left of them, for scripts that still call them.
 */
#include <stdio.h>

#include "cli/call.h"
#include "cli/report.h"
#include "cli/verbs.h"

/* The argument of -d, which all but getdev need. */
static int take_device(struct call *call, const char **ret)
{
	int c;

	*ret = NULL;
	while ((c = call_option(call)) != CALL_END) {
		if (c == CALL_BAD)
			return PLOOP_EXIT_PARAM;
		if (c == 'd')
			*ret = call->value;
	}
	if (!*ret || call->noperands)
		return call_usage(call, "give -d and nothing else");
	return PLOOP_EXIT_OK;
}

static int run_getdev(struct call *call)
{
	struct ploop_error err;
	unsigned number;

	while (call_option(call) != CALL_END)
		return PLOOP_EXIT_PARAM;
	if (ploop_next_number(&number, &err) < 0) {
		report_error(&err);
		return 1;
	}
	printf("Next unused minor: %u\n", number);
	return PLOOP_EXIT_OK;
}

/* A device that is there is started. */
static int run_start(struct call *call)
{
	struct ploop_which which = { 0 };
	struct ploop_device device;
	struct ploop_error err;
	int status;

	status = take_device(call, &which.device);
	if (status)
		return status;
	if (ploop_find(&which, &device, &err) < 0)
		return report_error(&err);
	ploop_device_clear(&device);
	return PLOOP_EXIT_OK;
}

static int run_with(struct call *call, int (*work)(const char *device, struct ploop_error *err))
{
	struct ploop_error err;
	const char *device;
	int status;

	status = take_device(call, &device);
	if (status)
		return status;
	return work(device, &err) < 0 ? report_error(&err) : PLOOP_EXIT_OK;
}

static int run_stop(struct call *call)
{
	return run_with(call, ploop_stop);
}

static int run_clear(struct call *call)
{
	return run_with(call, ploop_clear);
}

/* Taking a delta from under a running device loses what is in it: the original did it without a look. */
static int run_delete(struct call *call)
{
	struct ploop_error err = {
		.status = PLOOP_EXIT_DEVIOC,
		.text = "a delta of a running device cannot be taken out: merge it with snapshot-delete or "
			"snapshot-merge",
	};
	const char *device;
	int status;

	status = take_device(call, &device);
	return status ? status : report_error(&err);
}

static const struct verb_option device_options[] = {
	{ 'd', "device", "DEVICE", "the device, /dev/ploopN" },
	{ 0 },
};

static const struct verb_option delete_options[] = {
	{ 'd', "device", "DEVICE", "the device, /dev/ploopN" },
	{ 'l', "level", "N", "the level of the delta, 0 for the base" },
	{ 0 },
};

const struct verb verb_getdev = {
	.name = "getdev",
	.group = "Devices",
	.summary = "the number of the next free device",
	.synopsis = "",
	.flags = VERB_BARE,
	.run = run_getdev,
};

const struct verb verb_start = {
	.name = "start",
	.group = "Devices",
	.summary = "does nothing: mount starts a device",
	.synopsis = "-d DEVICE",
	.options = device_options,
	.run = run_start,
};

const struct verb verb_stop = {
	.name = "stop",
	.group = "Devices",
	.summary = "end a device that is not mounted",
	.synopsis = "-d DEVICE",
	.options = device_options,
	.run = run_stop,
};

const struct verb verb_clear = {
	.name = "clear",
	.group = "Devices",
	.summary = "clear a device whose ploopd is dead",
	.synopsis = "-d DEVICE",
	.options = device_options,
	.run = run_clear,
};

const struct verb verb_delete = {
	.name = "delete",
	.alias = "rm",
	.group = "Devices",
	.summary = "refused: snapshot-delete is the way",
	.synopsis = "-d DEVICE -l N",
	.options = delete_options,
	.run = run_delete,
};
