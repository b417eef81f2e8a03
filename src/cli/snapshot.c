/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* snapshot.c - `ploop snapshot`: of a disk by its descriptor, or of a device by the file that becomes its top. */
#include <stdio.h>

#include "cli/arg.h"
#include "cli/call.h"
#include "cli/json.h"
#include "cli/report.h"
#include "cli/verbs.h"

enum {
	OPTION_NO_FREEZE = OPTION_OWN,
};

struct arguments {
	const char *device;
	char uuid[ARG_UUID]; /* "": none given */
	bool freeze, no_freeze, json;
};

/* Returns CALL_END, or the exit status for bad options. */
static int take_options(struct call *call, struct arguments *arguments)
{
	struct ploop_error err;
	int c;

	while ((c = call_option(call)) != CALL_END) {
		switch (c) {
		case 'd':
			arguments->device = call->value;
			break;
		case 'u':
			if (arg_uuid(call->value, arguments->uuid, &err) < 0)
				return call_usage_error(call, &err);
			break;
		case 'F':
			arguments->freeze = true;
			break;
		case OPTION_NO_FREEZE:
			arguments->no_freeze = true;
			break;
		case OPTION_JSON:
			arguments->json = true;
			break;
		default:
			return PLOOP_EXIT_PARAM;
		}
	}
	return CALL_END;
}

static int of_device(struct call *call, const struct arguments *arguments)
{
	struct ploop_error err;

	if (*arguments->uuid || arguments->json)
		return call_usage(call, "-u and --json go with a descriptor, -d does not");
	if (ploop_snapshot_device(arguments->device, call->operands[0],
				  arguments->freeze ? 0 : PLOOP_SNAPSHOT_NO_FREEZE, &err) < 0)
		return report_error(&err);
	return PLOOP_EXIT_OK;
}

static int print_json(const char *uuid)
{
	struct json_object *object = json_object_new_object();

	json_add_text(object, "uuid", uuid);
	return json_print(object);
}

static int run(struct call *call)
{
	struct arguments arguments = { 0 };
	char taken[PLOOP_UUID];
	struct ploop_error err;
	int r = take_options(call, &arguments);

	if (r != CALL_END)
		return r;
	if (call->noperands != 1)
		return call_usage(call, arguments.device ? "give the file of the new delta"
							 : "give one DiskDescriptor.xml, or -d and a new delta");
	if (arguments.device)
		return of_device(call, &arguments);
	if (ploop_snapshot(call->operands[0], *arguments.uuid ? arguments.uuid : NULL,
			   arguments.no_freeze ? PLOOP_SNAPSHOT_NO_FREEZE : 0, taken, &err) < 0)
		return report_error(&err);
	return arguments.json ? print_json(taken) : PLOOP_EXIT_OK;
}

static const struct verb_option options[] = {
	{ 'u', "uuid", "UUID", "the name of the snapshot (default: a new one)" },
	{ 'd', "device", "DEVICE", "the device that gets DELTA, a new file, as its top" },
	{ 'F', "freeze", NULL, "with -d: freeze the mounted file system meanwhile" },
	{ OPTION_NO_FREEZE, "no-freeze", NULL, "leave the mounted file system alone: the snapshot is as after a crash" },
	VERB_OPTION_JSON,
	{ 0 },
};

const struct verb verb_snapshot = {
	.name = "snapshot",
	.group = "Snapshots",
	.summary = "take a snapshot of a disk, mounted or not",
	.synopsis = "[-u UUID] [--no-freeze] [--json] DESCRIPTOR\n"
		    "[-F] -d DEVICE DELTA",
	.details = "What is there now stays as it is; what is written from now on goes to a new delta.\n",
	.options = options,
	.run = run,
};

/* ---- tsnapshot ---- */

static int run_temporary(struct call *call)
{
	struct ploop_mount what = { 0 };
	char uuid[ARG_UUID] = "";
	struct ploop_error err;
	int c;

	while ((c = call_option(call)) != CALL_END) {
		switch (c) {
		case 'u':
			if (arg_uuid(call->value, uuid, &err) < 0)
				return call_usage_error(call, &err);
			break;
		case 'c':
			what.component = call->value;
			break;
		case 'm':
			what.target = call->value;
			break;
		case 'o':
			what.options = call->value;
			break;
		default:
			return PLOOP_EXIT_PARAM;
		}
	}
	if (!*uuid || !what.component || call->noperands != 1)
		return call_usage(call, "give -u, -c and one DiskDescriptor.xml");
	what.operands = (const char *const *)call->operands;
	what.noperands = 1;
	if (ploop_snapshot_mount(uuid, &what, NULL, &err) < 0)
		return report_error(&err);
	return PLOOP_EXIT_OK;
}

static const struct verb_option temporary_options[] = {
	{ 'u', "uuid", "UUID", "the name of the snapshot" },
	{ 'c', "component", "NAME", "who owns it: the name of its device" },
	{ 'm', "mount-point", "DIR", "mount the file system there, read-only" },
	{ 'o', "options", "OPTIONS", "mount options of the file system" },
	{ 0 },
};

const struct verb verb_tsnapshot = {
	.name = "tsnapshot",
	.group = "Snapshots",
	.summary = "take a temporary snapshot and mount it read-only beside the disk",
	.synopsis = "-u UUID -c NAME [-m DIR] [-o OPTIONS] DESCRIPTOR",
	.details = "The snapshot is not needed any more when its device is unmounted (ploop umount -c NAME).\n",
	.options = temporary_options,
	.run = run_temporary,
};
