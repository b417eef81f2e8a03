/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* snapshot-change.c - `ploop snapshot-switch` and `ploop snapshot-delete`. */
#include "cli/arg.h"
#include "cli/call.h"
#include "cli/report.h"
#include "cli/verbs.h"

/* -u, the one operand, and -D where the verb has it. Returns the exit status. */
static int take(struct call *call, char uuid[ARG_UUID], unsigned *flags)
{
	struct ploop_error err;
	int c;

	*uuid = '\0';
	while ((c = call_option(call)) != CALL_END) {
		switch (c) {
		case 'u':
			if (arg_uuid(call->value, uuid, &err) < 0)
				return call_usage_error(call, &err);
			break;
		case 'D':
			*flags |= PLOOP_SNAPSHOT_KEEP_TOP;
			break;
		default:
			return PLOOP_EXIT_PARAM;
		}
	}
	if (!*uuid || call->noperands != 1)
		return call_usage(call, "give -u and one DiskDescriptor.xml");
	return PLOOP_EXIT_OK;
}

static int run_switch(struct call *call)
{
	char uuid[ARG_UUID];
	struct ploop_error err;
	unsigned flags = 0;
	int status = take(call, uuid, &flags);

	if (status)
		return status;
	return ploop_snapshot_switch(call->operands[0], uuid, flags, NULL, &err) < 0 ? report_error(&err)
										      : PLOOP_EXIT_OK;
}

static int run_delete(struct call *call)
{
	char uuid[ARG_UUID];
	struct ploop_error err;
	unsigned flags = 0;
	int status = take(call, uuid, &flags);

	if (status)
		return status;
	return ploop_snapshot_delete(call->operands[0], uuid, &err) < 0 ? report_error(&err) : PLOOP_EXIT_OK;
}

static const struct verb_option switch_options[] = {
	{ 'u', "uuid", "UUID", "the snapshot to go back to" },
	{ 'D', "keep-top", NULL, "what is written now becomes a snapshot of its own, and is not lost" },
	{ 0 },
};

const struct verb verb_snapshot_switch = {
	.name = "snapshot-switch",
	.group = "Snapshots",
	.summary = "go back to a snapshot, of a disk that is not mounted",
	.synopsis = "-u UUID [-D] DESCRIPTOR",
	.details = "What was written since the last snapshot is lost without -D.\n",
	.options = switch_options,
	.run = run_switch,
};

static const struct verb_option delete_options[] = {
	{ 'u', "uuid", "UUID", "the snapshot" },
	{ 0 },
};

const struct verb verb_snapshot_delete = {
	.name = "snapshot-delete",
	.group = "Snapshots",
	.summary = "delete a snapshot",
	.synopsis = "-u UUID DESCRIPTOR",
	.details = "It is merged with what is made on it; when several are, each keeps what it holds.\n",
	.options = delete_options,
	.run = run_delete,
};
