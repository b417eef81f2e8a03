/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* restore.c - `ploop restore`: backups become a disk again. */
#include "cli/call.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/verbs.h"

static int run(struct call *call)
{
	enum progress_mode mode = PROGRESS_AUTO;
	struct ploop_backup_restore restore = { .progress = progress_report };
	struct progress progress;
	struct ploop_error err;
	int c, r;

	while ((c = call_option(call)) != CALL_END) {
		switch (c) {
		case 'd':
			restore.target = call->value;
			break;
		case OPTION_PROGRESS:
			if (progress_parse(call->value, &mode, &err) < 0)
				return call_usage_error(call, &err);
			break;
		default:
			return PLOOP_EXIT_PARAM;
		}
	}
	if (!restore.target)
		return call_usage(call, "where to? Give -d DIR");
	if (!call->noperands)
		return call_usage(call, "give a full backup, and the increments in their order");
	restore.backups = (const char *const *)call->operands;
	restore.nbackups = (size_t)call->noperands;
	restore.progress_data = &progress;
	progress_start(&progress, mode);
	r = ploop_backup_restore(&restore, &err);
	progress_end(&progress);
	return r < 0 ? report_error(&err) : PLOOP_EXIT_OK;
}

static const struct verb_option options[] = {
	{ 'd', "destination", "DIR", "the new folder of the disk" },
	VERB_OPTION_PROGRESS,
	{ 0 },
};

const struct verb verb_restore = {
	.name = "restore",
	.group = "Disks",
	.summary = "make a new disk of a full backup and the increments after it",
	.synopsis = "-d DIR BACKUP [INCREMENT ...]",
	.options = options,
	.run = run,
};
