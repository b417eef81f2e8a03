/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* replace-compare.c - two images, cluster by cluster: do they hold the same? See replace-private.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/error.h"
#include "device/device.h"
#include "image/dir.h"
#include "image/level.h"
#include "io/loop.h"
#include "lib/replace-private.h"

#define PIECE (UINT64_C(1) << 20)
#define DEPTH 4u /* pieces that are read at a time, of each */

struct comparison;

/* One piece of one of the two. */
struct reading {
	struct device_request request;
	struct comparison *comparison;
	void *buffer;
	int result;
};

struct comparison {
	struct loop *loop;
	struct device *devices[2];
	struct reading readings[DEPTH][2];
	unsigned busy;
	uint8_t *memory;
};

int replace_image_open(struct loop *loop, const char *path, uint32_t raw_cluster, struct replace_image *ret,
		       struct ploop_error *err)
{
	_dir_close_ struct dir *dir = NULL;
	struct level_request request = { .loop = loop };
	int r = dir_open_parent(NULL, path, &dir, &request.name, err);

	*ret = (struct replace_image){ .path = path, .lock = -1 };
	if (r < 0)
		return r;
	request.dir = dir;
	ret->delta.format = raw_cluster ? &format_raw : &format_ploop1;
	r = level_open(&request, &ret->delta, &ret->lock, err);
	return r < 0 ? r : level_parse(&ret->delta, raw_cluster, err);
}

void replace_image_close(struct replace_image *image)
{
	io_close(image->delta.file);
	if (image->path && image->lock >= 0)
		close(image->lock);
	*image = (struct replace_image){ .lock = -1 };
}

static int compare_form(const struct replace_image *old, const struct replace_image *new, struct ploop_error *err)
{
	const struct geometry *a = &old->delta.geometry, *b = &new->delta.geometry;

	if (a->size != b->size)
		return error_set(err, -EINVAL, PLOOP_EXIT_FORMAT, "Images %s and %s are of different size", old->path,
				 new->path);
	if (a->cluster != b->cluster || a->version != b->version)
		return error_set(
			err, -EINVAL, PLOOP_EXIT_FORMAT,
			"Images %s and %s are not identical: their clusters or format versions differ; see `ploop "
			"convert`",
			old->path, new->path);
	if (a->partial || b->partial)
		return error_set(err, -EUCLEAN, PLOOP_EXIT_IN_USE,
				 "%s: was not closed and holds clusters that are not whole; mount it once for writing",
				 a->partial ? old->path : new->path);
	return 0;
}

static void was_read(struct device_request *request, int result)
{
	struct reading *reading = container_of(request, struct reading, request);

	reading->result = result;
	if (!--reading->comparison->busy)
		loop_stop(reading->comparison->loop);
}

static void begin_reading(struct comparison *c, struct reading *reading, struct device *device, uint64_t start,
			  uint64_t length)
{
	reading->comparison = c;
	reading->request = (struct device_request){
		.kind = DEVICE_READ, .offset = start, .length = length, .buffer = reading->buffer, .done = was_read
	};
	c->busy++;
	device_submit(device, &reading->request);
}

static bool is_mapped(const struct comparison *c, unsigned side, uint64_t at)
{
	return device_lookup(c->devices[side], (uint32_t)(at / device_cluster(c->devices[side]))).cluster;
}

/* Reads up to DEPTH pieces from *at on that one of the two maps. Returns how many; *at moves on. */
static unsigned begin_batch(struct comparison *c, uint64_t *at)
{
	uint64_t size = device_size(c->devices[0]), cluster = device_cluster(c->devices[0]);
	unsigned n = 0;

	c->busy = 1; /* what needs no I/O is done at once */
	while (n < DEPTH && *at < size) {
		uint64_t end = min_u64(min_u64(size, round_down(*at, cluster) + cluster), *at + PIECE);

		if (is_mapped(c, 0, *at) || is_mapped(c, 1, *at)) {
			for (unsigned side = 0; side < 2; side++)
				begin_reading(c, &c->readings[n][side], c->devices[side], *at, end - *at);
			n++;
		}
		*at = end;
	}
	return n;
}

static int end_batch(struct comparison *c)
{
	int r = 0;

	c->busy--;
	while (c->busy && !r)
		r = loop_run(c->loop);
	return r;
}

static int compare_batch(const struct comparison *c, unsigned n, const char *const paths[2], struct ploop_error *err)
{
	for (unsigned i = 0; i < n; i++) {
		const struct reading *pair = c->readings[i];
		unsigned long long at = pair[0].request.offset;

		for (unsigned side = 0; side < 2; side++)
			if (pair[side].result < 0)
				return error_sys(err, pair[side].result, PLOOP_EXIT_READ,
						 "%s: reading at byte %llu of the disk", paths[side], at);
		if (memcmp(pair[0].buffer, pair[1].buffer, pair[0].request.length))
			return error_set(err, -EINVAL, PLOOP_EXIT_FORMAT,
					 "Images %s and %s are not identical: they differ near byte %llu of the disk",
					 paths[0], paths[1], at);
	}
	return 0;
}

static int compare_maps(const struct comparison *c, const char *const paths[2], struct ploop_error *err)
{
	for (uint64_t at = 0; at < device_size(c->devices[0]); at += device_cluster(c->devices[0]))
		if (is_mapped(c, 0, at) != is_mapped(c, 1, at))
			return error_set(
				err, -EINVAL, PLOOP_EXIT_FORMAT,
				"Images %s and %s are not identical: only one of them holds byte %llu of the disk",
				paths[0], paths[1], (unsigned long long)at);
	return 0;
}

static int compare_contents(struct comparison *c, const char *const paths[2], const struct ploop_replace *what,
			    struct ploop_error *err)
{
	uint64_t size = device_size(c->devices[0]), at = 0;
	int r = 0;

	while (at < size && !r) {
		unsigned n = begin_batch(c, &at);

		r = end_batch(c);
		if (r < 0)
			return error_sys(err, r, PLOOP_EXIT_READ, "%s", paths[0]);
		r = compare_batch(c, n, paths, err);
		if (!r && n && what->progress && what->progress(what->progress_data, "comparing", at, size))
			r = error_set(err, -ECANCELED, PLOOP_EXIT_ABORT, "stopped; nothing was replaced");
	}
	return r;
}

static void closed(void *data, int result)
{
	struct comparison *c = data;

	(void)result; /* nothing was written */
	c->busy = 0;
	loop_stop(c->loop);
}

static void comparison_close(struct comparison *c)
{
	for (unsigned side = 0; side < 2; side++) {
		if (!c->devices[side])
			continue;
		c->busy = 1;
		device_close(c->devices[side], closed, c);
		while (c->busy && loop_run(c->loop) == 0)
			;
	}
	if (c->memory)
		io_buffer_free(c->memory, 2 * DEPTH * PIECE);
}

static int comparison_open(struct comparison *c, const struct replace_image *const images[2], struct ploop_error *err)
{
	int r = 0;

	c->memory = io_buffer_new(2 * DEPTH * PIECE);
	if (!c->memory)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "comparing images");
	for (unsigned i = 0; i < 2 * DEPTH; i++)
		c->readings[i / 2][i % 2].buffer = c->memory + i * PIECE;
	for (unsigned side = 0; side < 2 && !r; side++) {
		const struct device_config config = {
			.loop = c->loop, .levels = &images[side]->delta, .nlevels = 1, .read_only = true
		};

		r = device_open(&config, &c->devices[side], err);
	}
	return r;
}

int replace_compare(struct loop *loop, const struct replace_image *old, const struct replace_image *new, bool base,
		    const struct ploop_replace *what, struct ploop_error *err)
{
	const struct replace_image *const images[2] = { old, new };
	const char *const paths[2] = { old->path, new->path };
	struct comparison c = { .loop = loop };
	int r = compare_form(old, new, err);

	if (r < 0 || what->no_compare)
		return r;
	r = comparison_open(&c, images, err);
	if (!r && !base)
		r = compare_maps(&c, paths, err);
	if (!r)
		r = compare_contents(&c, paths, what, err);
	comparison_close(&c);
	return r;
}
