/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* export.c - `ploop export`. */
#include "cli/call.h"
#include "cli/files.h"
#include "cli/report.h"
#include "cli/verbs.h"

enum {
	OPTION_NBD = OPTION_OWN,
	OPTION_RUN,
	OPTION_PID_FILE,
};

struct arguments {
	struct ploop_export export;
	struct files files;
};

static int take_option(struct arguments *own, int option, const char *value, struct ploop_error *err)
{
	switch (option) {
	case OPTION_NBD:
		own->export.socket = value;
		return 0;
	case OPTION_RUN:
		own->export.run = value;
		return 0;
	case OPTION_PID_FILE:
		own->export.pid_file = value;
		return 0;
	case 'r':
		own->export.read_only = true;
		return 0;
	default:
		return files_option(&own->files, option, value, err);
	}
}

static int run(struct call *call)
{
	struct arguments own = { 0 };
	struct ploop_error err;
	int c, r;

	while ((c = call_option(call)) != CALL_END) {
		if (c == CALL_BAD)
			return PLOOP_EXIT_PARAM;
		if (take_option(&own, c, call->value, &err) < 0)
			return call_usage_error(call, &err);
	}
	r = files_operands(&own.files, call);
	if (r)
		return r;
	if (!own.export.socket && !own.export.run)
		return call_usage(call, "say where: --nbd SOCKET, or what for: --run COMMAND");
	own.export.files = &own.files.files;
	ploop_export_nbd(&own.export, &err);
	return report_error(&err);
}

static const struct verb_option options[] = {
	{ OPTION_NBD, "nbd", "FILE", "listen on this unix socket" },
	{ OPTION_RUN, "run", "COMMAND", "run this, which finds the export in $uri, and end with it" },
	{ OPTION_PID_FILE, "pid-file", "FILE", "go to the background, and write the process's number there" },
	{ 'r', "read-only", NULL, "write to no file" },
	{ 'u', "uuid", "UUID", "this snapshot instead of the disk as it is now; read-only" },
	{ 'f', "format", "raw|ploop1|expanded", "format of the base, when there is no descriptor that says it" },
	{ 'b', "blocksize", "SECTORS", "cluster size of a raw base without descriptor" },
	{ OPTION_OUTSIDE, "outside", NULL, "follow the descriptor to files outside its folder" },
	{ 0 },
};

const struct verb verb_export = {
	.name = "export",
	.group = "Disks",
	.summary = "serve a disk or a snapshot to programs that speak NBD, without root",
	.synopsis = "--nbd SOCKET [-r] [-u UUID] [options] {DESCRIPTOR | IMAGE..}\n"
		    "--run COMMAND [-r] [-u UUID] [options] {DESCRIPTOR | IMAGE..}",
	.details = "It goes on until it is interrupted or killed (SIGTERM), or COMMAND ends. The disk is locked "
		   "meanwhile.\n",
	.options = options,
	.run = run,
};
