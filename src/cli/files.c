/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* files.c - see files.h. */
#include "cli/files.h"

#include "cli/size.h"

static int files_format(struct files *files, const char *value, struct ploop_error *err)
{
	enum arg_format format;
	int r = arg_format(value, &format, err);

	if (r < 0)
		return r;
	files->files.format = format == ARG_FORMAT_RAW ? "raw" : "ploop1";
	return 1;
}

static int files_cluster(struct files *files, const char *value, struct ploop_error *err)
{
	uint64_t sectors;
	int r = number_parse(value, "-b", UINT32_MAX / SIZE_SECTORS, &sectors, err);

	if (r < 0)
		return r;
	files->files.cluster = (uint32_t)sectors * SIZE_SECTORS;
	return 1;
}

static int files_uuid(struct files *files, const char *value, struct ploop_error *err)
{
	int r = arg_uuid(value, files->uuid, err);

	if (r < 0)
		return r;
	files->files.snapshot = files->uuid;
	return 1;
}

int files_option(struct files *files, int option, const char *value, struct ploop_error *err)
{
	switch (option) {
	case 'u':
		return files_uuid(files, value, err);
	case 'f':
		return files_format(files, value, err);
	case 'b':
		return files_cluster(files, value, err);
	case OPTION_OUTSIDE:
		files->files.outside = true;
		return 1;
	case OPTION_IO:
		files->files.io = value;
		return 1;
	default:
		return 0;
	}
}

int files_operands(struct files *files, const struct call *call)
{
	if (!call->noperands)
		return call_usage(call, "name a descriptor, or image files, base first");
	files->files.paths = (const char *const *)call->operands;
	files->files.npaths = (unsigned)call->noperands;
	return 0;
}
