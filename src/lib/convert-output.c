/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * convert-output.c - a disk, or what a raw or qcow2 file holds, written to a new file: export and import.
 *
 * Order of writes: the file is written, synced and compared as NAME.ploop-part, then renamed; a folder gets its descriptor last. With
 * snapshots the files below come first, so that no name leads nowhere. What was cut off leaves NAME.ploop-part, which the next run
 * replaces.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/child.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "image/descriptor.h"
#include "image/dir.h"
#include "image/stack.h"
#include "image/tree.h"
#include "io/io.h"
#include "io/loop.h"
#include "lib/convert.h"
#include "lib/copy-part.h"

#define LOOP_DEPTH 64
#define VERSION_DEFAULT 2u
#define CLUSTER_DEFAULT (1024u * 1024) /* of a source that has none */
#define SOURCE ".source" COPY_PART     /* what qemu-img makes of a qcow2 file */
#define QCOW2_MAGIC "QFI\xfb"

struct output {
	const struct ploop_convert_output *what;
	struct loop *loop;
	struct dir *dir;
	const char *name; /* of the new file in `dir` */
	char *source;     /* the raw file that a qcow2 file was made into; NULL: none */
	struct stack *stack;
	enum rewrite_form form;
	struct image_params params;
	char *made[TREE_MAX_DEPTH]; /* names of files that are done: they go when a later one fails */
	unsigned nmade;
};

static void cleanup_output(struct output *output)
{
	stack_close(output->stack);
	if (output->source)
		unlink(output->source);
	free(output->source);
	for (unsigned i = 0; i < output->nmade; i++)
		free(output->made[i]);
	if (output->loop)
		loop_free(output->loop);
	dir_close(output->dir);
}

static bool ends_with(const char *text, const char *end)
{
	size_t len = strlen(text), n = strlen(end);

	return len > n && !strcmp(text + len - n, end);
}

static int plan_form(struct output *output, struct ploop_error *err)
{
	const char *format = output->what->format;

	if (!format)
		format = ends_with(output->name, ".qcow2") ? "qcow2"
			 : ends_with(output->name, ".raw") ? "raw"
							   : "expanded";
	if (!strcmp(format, "qcow2"))
		output->form = REWRITE_QCOW2;
	else if (!strcmp(format, "raw"))
		output->params.mode = IMAGE_RAW;
	else if (!strcmp(format, "preallocated"))
		output->params.mode = IMAGE_PREALLOCATED;
	else if (!strcmp(format, "expanded") || !strcmp(format, "ploop1"))
		output->params.mode = IMAGE_EXPANDED;
	else
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Bad -f argument: %s", format);
	if (output->form != REWRITE_QCOW2)
		output->form = convert_form(output->params.mode);
	if (output->what->snapshots && output->form != REWRITE_QCOW2)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
				 "--all is for qcow2: a file of another format has no snapshots");
	return 0;
}

/* ---- The source ---- */

static bool is_qcow2(const char *path)
{
	_close_ int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	char magic[4];

	return fd >= 0 && fd_pread(fd, magic, sizeof(magic), 0) == sizeof(magic) &&
	       !memcmp(magic, QCOW2_MAGIC, sizeof(magic));
}

/* qemu-img knows what there is in qcow2. A sparse file between the two; it goes at the end. */
static int import_qcow2(struct output *output, const char *path, struct ploop_error *err)
{
	const char *argv[] = { "qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, NULL, NULL };
	char last[256] = "";
	int status, r;

	if (asprintf(&output->source, "%s/%s" SOURCE, output->dir->path, output->name) < 0) {
		output->source = NULL;
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", path);
	}
	argv[7] = output->source;
	r = child_run(&(struct child_request){ .argv = argv, .fd = -1, .level = LOG_LEVEL_DETAIL }, &status, last,
		      sizeof(last));
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_SYS, "qemu-img, which reads qcow2, cannot be run");
	if (status)
		return error_set(err, -EIO, PLOOP_EXIT_READ, "%s: qemu-img failed (exit code %d): %s", path, status,
				 last);
	return 0;
}

static int open_source(struct output *output, struct ploop_error *err)
{
	const struct ploop_files *files = output->what->source;
	const char *path = files->paths[0];
	struct stack_request request = {
		.operands = files->paths,
		.noperands = files->npaths,
		.base_format = files->format,
		.cluster = files->cluster,
		.snapshot = files->snapshot,
		.read_only = true,
		.outside = files->outside,
	};
	int r = 0;

	if (files->npaths == 1 && !files->format && is_qcow2(path)) {
		r = import_qcow2(output, path, err);
		path = output->source;
		request.operands = &path;
		request.base_format = "raw";
	}
	if (r < 0)
		return r;
	if (request.base_format && !strcmp(request.base_format, "raw") && !request.cluster)
		request.cluster = CLUSTER_DEFAULT;
	return stack_open(output->loop, &request, &output->stack, err);
}

static int plan_params(struct output *output, struct ploop_error *err)
{
	const struct geometry *top = &output->stack->levels[output->stack->nlevels - 1].geometry;
	unsigned version = output->what->version;

	output->params.sparse = true;
	output->params.cluster = top->cluster;
	output->params.version = version ? version : top->version ? top->version : VERSION_DEFAULT;
	output->params.size = top->size;
	if (output->form == REWRITE_PLOOP1 || output->form == REWRITE_PREALLOCATED)
		output->params.size = round_up(top->size, top->cluster);
	if (output->params.version > 2)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Unknown ploop image version: %u",
				 output->params.version);
	return 0;
}

static int check_room(const struct output *output, struct ploop_error *err)
{
	const struct stack *stack = output->stack;
	uint64_t bytes = 0, allocated;

	for (unsigned i = 0; i < stack->nlevels; i++)
		if (!convert_shares(output->dir, stack->levels[i].file->path) &&
		    !io_allocated(stack->levels[i].file, &allocated))
			bytes += allocated;
	bytes = min_u64(bytes, output->params.size);
	return convert_check_room(output->dir, output->form == REWRITE_PREALLOCATED ? output->params.size : bytes, err);
}

/* ---- The new files ---- */

static int refuse_existing(const struct output *output, const char *name, struct ploop_error *err)
{
	if (!dir_exists(output->dir, name))
		return 0;
	return error_set(err, -EEXIST, PLOOP_EXIT_PARAM, "Can't create %s/%s: File exists", output->dir->path, name);
}

/* A part that was left over goes, but not one that somebody writes to. */
static int open_part(const struct output *output, const char *name, struct copy_part *part, struct ploop_error *err)
{
	_free_ char *path = dir_path(output->dir, name);
	int r;

	if (!path)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", name);
	r = copy_part_open(part, path, true, err);
	if (r < 0)
		return r;
	if (copy_part_discard(part->path) != -EBUSY)
		return 0;
	r = error_set(err, -EBUSY, PLOOP_EXIT_BUSY, "%s: a copy writes to it", part->path);
	copy_part_close(part);
	return r;
}

/* Writes some levels to a file of that name, by way of its part. */
static int write_file(struct output *output, const char *name, const struct delta *levels, unsigned nlevels,
		      const char *backing, struct ploop_error *err)
{
	const struct ploop_convert_output *what = output->what;
	_cleanup_(copy_part_close) struct copy_part part = { .lock = -EBADF };
	struct convert_write write = {
		.loop = output->loop,
		.dir = output->dir,
		.levels = levels,
		.nlevels = nlevels,
		.form = output->form,
		.params = output->params,
		.keep_zeros = backing != NULL,
		.backing = backing,
		.backing_format = "qcow2",
		.no_verify = what->no_verify,
		.progress = what->progress,
		.progress_data = what->progress_data,
	};
	int r = refuse_existing(output, name, err);

	if (r == 0)
		r = open_part(output, name, &part, err);
	if (r < 0)
		return r;
	output->made[output->nmade] = strdup(name);
	if (!output->made[output->nmade])
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", name);
	write.name = part.part;
	r = convert_write(&write, err);
	if (r < 0) {
		free(output->made[output->nmade]);
		return r;
	}
	output->nmade++;
	return copy_part_publish(&part, err);
}

/* The name of the file that holds what snapshot `level` has; the top's is what was asked for. */
static char *level_name(const struct output *output, const struct snapshot *snapshot, unsigned level)
{
	char *name = NULL;

	if (level + 1 == output->stack->nlevels)
		return strdup(output->name);
	if (asprintf(&name, "%s.%s", output->name, snapshot->guid.text) < 0)
		return NULL;
	return name;
}

/* A chain of qcow2 files, each backed by the one before it. */
static int write_all(struct output *output, struct ploop_error *err)
{
	const struct stack *stack = output->stack;
	_descriptor_free_ struct descriptor *d = NULL;
	const struct snapshot *chain[TREE_MAX_DEPTH], *top;
	_free_ char *below = NULL;
	struct guid guid;
	int r;

	if (!stack->descriptor)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
				 "--all needs a DiskDescriptor.xml, which names the snapshots");
	r = descriptor_open(stack->descriptor, &d, err);
	if (r < 0)
		return r;
	top = stack->snapshot && guid_parse(stack->snapshot, &guid) ? descriptor_find(d, &guid) : descriptor_top(d);
	r = top ? tree_chain(d, top, chain, err) : -ENOENT;
	if (r != (int)stack->nlevels)
		return r < 0 ? r
			     : error_set(err, -EBUSY, PLOOP_EXIT_BUSY, "%s was changed meanwhile", stack->descriptor);
	r = 0;
	for (unsigned i = 0; i < stack->nlevels && !r; i++) {
		char *name = level_name(output, chain[i], i);

		/* What is larger above than below reads as zeros there. */
		output->params.size = stack->levels[i].geometry.size;
		r = name ? write_file(output, name, &stack->levels[i], 1, below, err)
			 : error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", output->name);
		free(below);
		below = name;
	}
	return r;
}

/* A ploop image in a folder of its own is a disk. */
static int add_descriptor(struct output *output, struct ploop_error *err)
{
	if (output->form == REWRITE_QCOW2 || output->params.mode == IMAGE_RAW ||
	    dir_exists(output->dir, DESCRIPTOR_NAME))
		return 0;
	return disk_create(output->dir, DESCRIPTOR_NAME, output->name, &output->params, err);
}

static void remove_made(struct output *output)
{
	for (unsigned i = output->nmade; i-- > 0;)
		(void)dir_unlink(output->dir, output->made[i]);
}

static int run(struct output *output, struct ploop_error *err)
{
	const struct stack *stack;
	int r = dir_open_parent(NULL, output->what->image, &output->dir, &output->name, err);

	if (!r)
		r = plan_form(output, err);
	if (!r)
		r = refuse_existing(output, output->name, err);
	if (!r)
		r = loop_new(NULL, LOOP_DEPTH, &output->loop, err);
	if (!r)
		r = open_source(output, err);
	if (!r)
		r = plan_params(output, err);
	if (!r)
		r = check_room(output, err);
	if (r < 0)
		return r;
	stack = output->stack;
	r = output->what->snapshots ? write_all(output, err)
				    : write_file(output, output->name, stack->levels, stack->nlevels, NULL, err);
	if (!r)
		r = add_descriptor(output, err);
	if (r < 0)
		remove_made(output);
	return r;
}

int ploop_convert_output(const struct ploop_convert_output *what, struct ploop_error *err)
{
	_cleanup_(cleanup_output) struct output output = { .what = what };

	return run(&output, err);
}
