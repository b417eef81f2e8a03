/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* create.c - writes new image files. */
#include "image/create.h"

#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "format/format.h"
#include "image/descriptor.h"
#include "image/dir.h"
#include "io/io.h"
#include "io/loop.h"

/* Entries of an identity index are made in pieces of this many bytes, blocks are taken in pieces of that many. */
#define INDEX_PIECE (1024u * 1024)
#define BLOCKS_PIECE (1024ull * 1024 * 1024)

static const struct format *format_of(const struct image_params *params)
{
	return params->mode == IMAGE_RAW ? &format_raw : &format_ploop1;
}

int image_plan(const struct image_params *params, struct geometry *ret, struct ploop_error *err)
{
	const struct format_params plan = {
		.version = params->version,
		.size = params->size,
		.cluster = params->cluster,
	};

	const struct format *format = format_of(params);
	int r = format->plan(&plan, ret, err);

	if (r < 0)
		return r;
	/* Version 1 cannot address a file of the full size of its largest disk. */
	if (params->mode == IMAGE_PREALLOCATED && (uint64_t)ret->first + ret->clusters - 1 > format->last(ret))
		return error_set(err, -EFBIG, PLOOP_EXIT_PARAM,
				 "version %u cannot preallocate a disk of %llu sectors; use version 2", params->version,
				 (unsigned long long)(params->size / SECTOR));
	return 0;
}

struct zeroing {
	struct io_op op;
	bool pending;
	int result;
};

static void zeroing_done(struct io_op *op, int result)
{
	struct zeroing *zeroing = container_of(op, struct zeroing, op);

	zeroing->pending = false;
	zeroing->result = result;
}

/* Takes the blocks of the whole file from the host; they read as zeros. */
static int take_blocks(struct loop *loop, struct io_file *file, uint64_t size)
{
	for (uint64_t done = 0; done < size;) {
		uint64_t piece = min_u64(size - done, BLOCKS_PIECE);
		struct zeroing zeroing = {
			.op = { .kind = IO_ZERO, .file = file, .offset = done, .length = piece, .done = zeroing_done },
			.pending = true,
		};

		io_submit(&zeroing.op);
		while (zeroing.pending) {
			int r = loop_turn(loop, UINT64_MAX);

			if (r < 0)
				return r;
		}
		if (zeroing.result < 0)
			return zeroing.result;
		done += piece;
	}
	return 0;
}

/* Maps every virtual cluster, in order. The header in front of the index stays as it is. */
static int write_identity(struct io_file *file, const struct geometry *g)
{
	uint32_t per_piece = INDEX_PIECE / sizeof(uint32_t);
	_free_
	uint32_t *entries = malloc(INDEX_PIECE);

	if (!entries)
		return -ENOMEM;
	for (uint32_t v = 0; v < g->clusters;) {
		uint32_t n = g->clusters - v < per_piece ? g->clusters - v : per_piece;
		int r;

		for (uint32_t i = 0; i < n; i++)
			entries[i] = htole32(format_ploop1.encode(g, g->first + v + i));
		r = io_pwrite(file, entries, n * sizeof(uint32_t), g->index + 4 * (uint64_t)v);
		if (r < 0)
			return r;
		v += n;
	}
	return 0;
}

static int fill_ploop1(struct loop *loop, struct io_file *file, const struct image_params *params,
		       const struct geometry *g)
{
	bool preallocated = params->mode == IMAGE_PREALLOCATED;
	uint64_t size = geometry_offset(g, g->first);
	_free_
	void *head = calloc(1, FORMAT_HEAD);
	int r;

	if (!head)
		return -ENOMEM;
	if (preallocated)
		size += (uint64_t)g->clusters * g->cluster;
	format_ploop1.build(g, head);
	/* The rest of the index is the hole that this leaves. */
	r = io_truncate(file, size);
	if (!r && preallocated)
		r = take_blocks(loop, file, size);
	if (!r)
		r = io_pwrite(file, head, FORMAT_HEAD, 0);
	if (!r && preallocated)
		r = write_identity(file, g);
	return r;
}

static int fill_raw(struct loop *loop, struct io_file *file, const struct image_params *params)
{
	int r = io_truncate(file, params->size);

	if (!r && !params->sparse)
		r = take_blocks(loop, file, params->size);
	return r;
}

static int fill(struct loop *loop, struct io_file *file, const struct image_params *params, const struct geometry *g)
{
	int r = params->mode == IMAGE_RAW ? fill_raw(loop, file, params) : fill_ploop1(loop, file, params, g);

#ifdef IMAGE_BREAK_UNSYNCED /* tests/sim: the image is named before it is durable */
	return r;
#endif
	return r ? r : io_sync(file);
}

static void tell(const char *path, const struct image_params *params)
{
	unsigned long long sectors = params->size / SECTOR;
	unsigned cluster = params->cluster / SECTOR;

	if (params->mode == IMAGE_RAW)
		log_info("Creating raw delta %s size=%llu sectors", path, sectors);
	else
		log_info("Creating %sdelta %s bs=%u size=%llu sectors v%u",
			 params->mode == IMAGE_PREALLOCATED ? "preallocated " : "", path, cluster, sectors,
			 params->version);
}

int image_create(struct loop *loop, struct dir *dir, const char *name, const struct image_params *params,
		 struct ploop_error *err)
{
	_free_
	char *path = dir_path(dir, name);
	struct ploop_error why = { 0 };
	struct geometry g;
	struct io_file *file;
	int r;

	if (!path)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", name);
	r = image_plan(params, &g, err);
	if (r < 0)
		return r;
	tell(path, params);
	r = io_open(loop, params->module, path, IO_RDWR | IO_CREATE, &file, &why);
	if (r < 0)
		return error_sys(err, r, r == -EEXIST ? PLOOP_EXIT_PARAM : PLOOP_EXIT_CREAT, "Can't create %s", path);
	r = fill(loop, file, params, &g);
	io_close(file);
	if (!r)
		r = dir_sync(dir);
	if (r < 0) {
		dir_unlink(dir, name);
		return error_sys(err, r, PLOOP_EXIT_CREAT, "Can't create %s", path);
	}
	return 0;
}

int disk_create(struct dir *dir, const char *descriptor, const char *image, const struct image_params *params,
		struct ploop_error *err)
{
	_free_
	char *path = dir_path(dir, descriptor);
	_free_
	char *text = NULL;
	_descriptor_free_ struct descriptor *d = NULL;
	size_t len;
	int r;

	if (!path)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", descriptor);
	r = descriptor_new(path, image, params, &d, err);
	if (r < 0)
		return r;
	r = descriptor_to_text(d, &text, &len);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_MALLOC, "%s", path);
	log_info("Storing %s", path);
	r = dir_create(dir, descriptor, text, len);
	if (r < 0)
		return error_sys(err, r, r == -EEXIST ? PLOOP_EXIT_PARAM : PLOOP_EXIT_DISKDESCR, "Can't create %s",
				 path);
	return 0;
}
