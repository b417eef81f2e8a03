/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* rewrite-verify.c - both sides of a rewrite, read through the engine and compared. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "device/device.h"
#include "io/io.h"
#include "io/loop.h"
#include "job/qcow2.h"
#include "job/rewrite-private.h"
#include "job/rewrite.h"

#define PIECE (1024u * 1024)
#define SAMPLE 4096u

struct side {
	struct device_request request;
	struct loop *loop;
	struct device *device;
	/* REWRITE_QCOW2, which the engine does not read: the file, and where in it the clusters are. */
	struct io_file *file;
	const struct geometry *geometry;
	uint32_t *places;
	const char *path; /* for messages: who wrote the file may have closed it */
	void *buffer;
	bool busy;
	int result;
};

static uint32_t lookup(const struct side *side, uint32_t v)
{
	return side->device ? device_lookup(side->device, v).cluster : side->places[v];
}

int rewrite_open_device(struct loop *loop, const struct delta *levels, unsigned nlevels, struct device **ret,
			struct ploop_error *err)
{
	const struct device_config config = {
		.loop = loop, .levels = levels, .nlevels = nlevels, .read_only = true, .on_full = DEVICE_FULL_ERROR
	};

	return device_open(&config, ret, err);
}

int rewrite_open_source(const struct rewrite *rewrite, struct device **ret, struct ploop_error *err)
{
	return rewrite_open_device(rewrite->loop, rewrite->levels, rewrite->nlevels, ret, err);
}

static void closed(void *data, int result)
{
	struct side *side = data;

	(void)result; /* nothing was written */
	side->busy = false;
	loop_stop(side->loop);
}

void rewrite_close_device(struct loop *loop, struct device *device)
{
	struct side side = { .loop = loop, .busy = true };
	int r = 0;

	device_close(device, closed, &side);
	while (side.busy && !r)
		r = loop_run(loop);
}

static void was_read(struct device_request *request, int result)
{
	struct side *side = container_of(request, struct side, request);

	side->busy = false;
	side->result = result;
	loop_stop(side->loop);
}

static int read_place(struct side *side, uint64_t offset, uint64_t length)
{
	uint32_t cluster = side->geometry->cluster, k = side->places[offset / cluster];

	memset(side->buffer, 0, length);
	return k ? io_pread(side->file, side->buffer, length, geometry_offset(side->geometry, k) + offset % cluster)
		 : 0;
}

/* Inside one cluster. */
static void start_read(struct side *side, uint64_t offset, uint64_t length)
{
	if (!side->device) {
		side->result = read_place(side, offset, length);
		return;
	}
	side->busy = true;
	side->result = 0;
	side->request = (struct device_request){
		.kind = DEVICE_READ, .offset = offset, .length = length, .buffer = side->buffer, .done = was_read
	};
	device_submit(side->device, &side->request);
}

/* 1: the same, 0: not. */
static int same(struct side *sides, uint64_t offset, uint64_t length)
{
	int r = 0;

	start_read(&sides[0], offset, length);
	start_read(&sides[1], offset, length);
	while ((sides[0].busy || sides[1].busy) && !r)
		r = loop_run(sides[0].loop);
	if (!r)
		r = sides[0].result ? sides[0].result : sides[1].result;
	return r < 0 ? r : !memcmp(sides[0].buffer, sides[1].buffer, length);
}

static int differ(const struct side *target, uint64_t offset, struct ploop_error *err)
{
	return error_set(err, -EUCLEAN, PLOOP_EXIT_WRITE, "%s is not what was written to it, at byte %llu of the disk",
			 target->path, (unsigned long long)offset);
}

static int verify_cluster(const struct rewrite *rewrite, struct side *sides, uint32_t v, struct ploop_error *err)
{
	uint64_t start = (uint64_t)v * rewrite->to.cluster;
	/* A raw source may end inside the last cluster. */
	uint64_t end = min_u64(start + rewrite->to.cluster, device_size(sides[0].device));
	uint32_t from = lookup(&sides[0], v), to = lookup(&sides[1], v);

	if (rewrite->keep_zeros && !!from != !!to)
		return differ(&sides[1], start, err);
	if (!from && !to)
		return 0;
	/* A cluster that was left out for its zeros is read in any case. */
	if (rewrite->shared && from && to)
		end = min_u64(end, start + SAMPLE);
	for (uint64_t at = start; at < end; at += PIECE) {
		int r = same(sides, at, min_u64(PIECE, end - at));

		if (r < 0)
			return error_sys(err, r, PLOOP_EXIT_READ, "%s: reading it back", sides[1].path);
		if (!r)
			return differ(&sides[1], at, err);
	}
	return 0;
}

static int verify(const struct rewrite *rewrite, struct side *sides, struct ploop_error *err)
{
	int r = 0;

	for (uint32_t v = 0; v < rewrite->to.clusters && !r; v++) {
		if (v % 64 == 0 && rewrite->progress &&
		    rewrite->progress(rewrite->progress_data, "verify", (uint64_t)v * rewrite->to.cluster,
				      rewrite->to.size))
			return error_set(err, -ECANCELED, PLOOP_EXIT_ABORT, "%s: cancelled", sides[1].path);
		r = verify_cluster(rewrite, sides, v, err);
	}
	return r;
}

static int open_target(const struct rewrite *rewrite, const struct delta *target, struct side *side,
		       struct ploop_error *err)
{
	int r;

	if (rewrite->form != REWRITE_QCOW2)
		return rewrite_open_device(rewrite->loop, target, 1, &side->device, err);
	side->file = target->file;
	side->geometry = &target->geometry;
	side->places = malloc(target->geometry.clusters * sizeof(uint32_t));
	r = side->places ? qcow2_load(side->file, side->geometry, side->places) : -ENOMEM;
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_READ, "%s: reading it back", side->file->path) : 0;
}

int rewrite_verify(const struct rewrite *rewrite, const struct delta *target, struct ploop_error *err)
{
	struct side sides[2] = { { .loop = rewrite->loop }, { .loop = rewrite->loop, .path = target->file->path } };
	int r = rewrite_open_source(rewrite, &sides[0].device, err);

	if (!r)
		r = open_target(rewrite, target, &sides[1], err);
	for (unsigned i = 0; i < 2 && !r; i++) {
		sides[i].buffer = io_buffer_new(PIECE);
		if (!sides[i].buffer)
			r = error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", sides[1].path);
	}
	if (!r)
		r = verify(rewrite, sides, err);
	for (unsigned i = 0; i < 2; i++) {
		if (sides[i].device)
			rewrite_close_device(rewrite->loop, sides[i].device);
		io_buffer_free(sides[i].buffer, PIECE);
		free(sides[i].places);
	}
	return r;
}
