/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* init.c - `ploop init`: a new disk. */
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "cli/arg.h"
#include "cli/call.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/size.h"
#include "cli/verbs.h"

#define SECTOR_BYTES 512u
#define CLUSTER_MAX 131072u /* sectors */

enum {
	OPTION_FROM = OPTION_OWN,
};

struct init_options {
	struct ploop_init_params params;
	enum progress_mode progress;
	bool sized;
};

static int read_size(struct init_options *options, const char *text, struct ploop_error *err)
{
	options->sized = true;
	return size_parse(text, "-s", SIZE_SECTORS, &options->params.size, err);
}

static int read_cluster(struct init_options *options, const char *text, struct ploop_error *err)
{
	uint64_t sectors;
	int r = number_parse(text, "-b", UINT32_MAX, &sectors, err);

	if (r < 0)
		return r;
	if (!sectors || sectors > CLUSTER_MAX)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
				 "Incorrect blocksize specified: %s sectors; "
				 "it is a power of two from 64 to 131072",
				 text);
	options->params.cluster = (uint32_t)sectors * SECTOR_BYTES;
	return 0;
}

static int read_fs_block(struct init_options *options, const char *text, struct ploop_error *err)
{
	uint64_t bytes;
	int r = number_parse(text, "-B", UINT32_MAX, &bytes, err);

	if (!r && !bytes)
		r = error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "ERROR: Invalid argument for option -B: %s", text);
	if (!r)
		options->params.fs_block = (uint32_t)bytes;
	return r;
}

/* A count that must not be 0, as 0 means "not given" further down. */
static int read_count(const char *text, const char *option, uint64_t max, uint64_t *ret, struct ploop_error *err)
{
	int r = number_parse(text, option, max, ret, err);

	if (!r && !*ret)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "ERROR: Invalid argument for option %s: %s", option,
				 text);
	return r;
}

static int read_format(struct init_options *options, const char *text, struct ploop_error *err)
{
	enum arg_format format;
	int r = arg_format(text, &format, err);

	options->params.format = text;
	return r;
}

/* Where a disk lives on a host of the original may differ; here there is one kind. */
static int read_type(const char *text, struct ploop_error *err)
{
	if (!strcmp(text, "ploop"))
		return 0;
	return error_set(err, -EOPNOTSUPP, PLOOP_EXIT_PARAM,
			 "-T %s: only ploop disks are made; for qcow2 see qemu-img(1)", text);
}

static int read_option(struct init_options *options, int c, const char *value, struct ploop_error *err)
{
	struct ploop_init_params *params = &options->params;

	switch (c) {
	case 's':
		return read_size(options, value, err);
	case 'f':
		return read_format(options, value, err);
	case 'v':
		return arg_version(value, &params->version, err);
	case 't':
		params->fstype = value;
		return 0;
	case 'b':
		return read_cluster(options, value, err);
	case 'B':
		return read_fs_block(options, value, err);
	case 'i':
		return read_count(value, "-i", UINT32_MAX, &params->bytes_per_inode, err);
	case 'N':
		return read_count(value, "-N", UINT32_MAX, &params->inodes, err);
	case 'n':
		params->flags |= PLOOP_INIT_NO_LAZY;
		return 0;
	case 'S':
		params->flags |= PLOOP_INIT_SPARSE;
		return 0;
	case 'P':
		params->flags |= PLOOP_INIT_NO_PARTITION;
		return 0;
	case 'L':
		params->label = value;
		return 0;
	case 'T':
		return read_type(value, err);
	case 'k':
		return error_set(err, -EOPNOTSUPP, PLOOP_EXIT_CRYPT,
				 "-k: encryption is not supported; put the image on an "
				 "encrypted file system, or LUKS into the disk");
	case OPTION_FROM:
		params->from = value;
		return 0;
	default:
		return progress_parse(value, &options->progress, err);
	}
}

static int make(struct init_options *options)
{
	struct progress progress;
	struct ploop_error err;
	int r;

	progress_start(&progress, options->progress);
	options->params.progress = progress_report;
	options->params.progress_data = &progress;
	r = ploop_init(&options->params, &err);
	progress_end(&progress);
	return r < 0 ? report_error(&err) : PLOOP_EXIT_OK;
}

static int run(struct call *call)
{
	struct init_options options = { .progress = PROGRESS_AUTO };
	struct ploop_error err;
	int c;

	while ((c = call_option(call)) != CALL_END) {
		if (c == CALL_BAD)
			return PLOOP_EXIT_PARAM;
		if (read_option(&options, c, call->value, &err) < 0)
			return err.status == PLOOP_EXIT_PARAM ? call_usage_error(call, &err) : report_error(&err);
	}
	if (call->noperands != 1)
		return call_usage(call, "give one DELTA, the image file to make");
	if (!options.sized)
		return call_usage(call, "give the size with -s");
	options.params.image = call->operands[0];
	return make(&options);
}

static const struct verb_option options[] = {
	{ 's', "size", "SIZE", "size of the disk; K, M, G, T, or sectors" },
	{ 'f', "format", "expanded|preallocated|raw|ploop1",
	  "kind of image; expanded (also called ploop1) by default" },
	{ 'v', "version", "1|2", "version of the format; 2 by default" },
	{ 't', "fstype", "ext4|ext3|xfs|none", "file system inside; ext4 by default" },
	{ 'b', "blocksize", "SECTORS", "size of a cluster; 2048 by default" },
	{ 'B', "fs-blocksize", "BYTES", "block size of the file system; 4096 by default" },
	{ 'i', "bytes-per-inode", "BYTES", "one inode for so many bytes; 16384 by default, 8192 below 8 GiB" },
	{ 'N', "inodes", "N", "so many inodes" },
	{ 'L', "label", "LABEL", "label of the file system" },
	{ OPTION_FROM, "from", "TAR", "fill the file system with a folder or tar archive (- standard input)" },
	{ 'n', "nolazy", NULL, "initialise all tables of the file system now" },
	{ 'S', "sparse", NULL, "raw: take no blocks from the host yet" },
	{ 'P', "no-partition", NULL, "no partition table" },
	{ 'T', "type", "ploop", "kind of disk; there is this one only" },
	{ 'k', "key", "KEYID", "refused: encryption is not supported" },
	VERB_OPTION_PROGRESS,
	{ 0 },
};

const struct verb verb_init = {
	.name = "init",
	.group = "Disks",
	.summary = "make a new disk with a file system in it",
	.synopsis = "-s SIZE [option...] DELTA",
	.details = "Makes the image DELTA and, beside it, DiskDescriptor.xml. Needs neither root nor a device.\n",
	.options = options,
	.run = run,
};
