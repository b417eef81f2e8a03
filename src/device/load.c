/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * load.c - reads the indexes of all levels into the merged map.
 *
 * Base first, so that upper levels win. Holes of a sparse index are skipped, so that an empty disk of any size opens at once.
 * Entries come from strangers: one that points outside the data area or beyond the end of the file is refused, and so are
 * two entries of the top that share a cluster, because writing through them would destroy data. `ploop check` repairs both.
 */
#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/le.h"
#include "device/internal.h"

#define LOAD_CHUNK (UINT64_C(1) << 20)

struct load {
	struct map *map;       /* where the entries go */
	struct writer *writer; /* whose clusters are claimed; or NULL */
	bool rescue;           /* a shared cluster is no reason to refuse: nobody will write */
	unsigned level;
	const struct delta *delta;
	uint64_t file_size;
	uint32_t end; /* file clusters from here on are beyond the end of the file */
	struct ploop_error *err;
};

static int load_refuse(const struct load *load, uint32_t v, const char *what)
{
	return error_set(load->err, -EUCLEAN, PLOOP_EXIT_FORMAT,
			 "%s: index entry of cluster %u %s; run 'ploop check' on the image", load->delta->file->path, v,
			 what);
}

static int load_entry(const struct load *load, uint32_t v, uint32_t entry)
{
	uint32_t cluster;

	if (load->delta->format->decode(&load->delta->geometry, entry, &cluster))
		return load_refuse(load, v, "points outside the data area");
	if (!cluster)
		return 0;
	if (cluster >= load->end)
		return load_refuse(load, v, "points beyond the end of the file");
	/* Only writes would be dangerous: the data of such a disk can still be rescued by reading it. */
	if (load->writer && !alloc_claim(&load->writer->alloc, cluster) && !load->rescue)
		return load_refuse(load, v, "points to a cluster that another entry uses");
	map_cover(load->map, v, load->level, cluster);
	return 0;
}

/* Decodes `len` bytes of the index that start at entry v. */
static int load_entries(const struct load *load, const uint8_t *bytes, uint64_t len, uint32_t v)
{
	for (uint64_t i = 0; i + 4 <= len; i += 4, v++) {
		uint32_t entry = le32_get(bytes + i);
		int r;

		if (!entry)
			continue;
		r = load_entry(load, v, entry);
		if (r)
			return r;
	}
	return 0;
}

static int load_read_error(const struct load *load, int r)
{
	return error_sys(load->err, r, PLOOP_EXIT_READ, "%s: cannot read the index", load->delta->file->path);
}

/* Reads the index bytes start..end of the file, which hold data. */
static int load_range(const struct load *load, uint8_t *buffer, uint64_t start, uint64_t end)
{
	const struct geometry *g = &load->delta->geometry;
	int r = 0;

	for (uint64_t at = start; at < end && !r; at += LOAD_CHUNK) {
		uint64_t len = min_u64(LOAD_CHUNK, end - at);

		r = io_pread(load->delta->file, buffer, len, at);
		if (r)
			return load_read_error(load, r);
		r = load_entries(load, buffer, len, (uint32_t)((at - g->index) / 4));
	}
	return r;
}

static int load_index(const struct load *load, uint8_t *buffer)
{
	const struct geometry *g = &load->delta->geometry;
	uint64_t end = g->index + 4 * (uint64_t)g->clusters;
	uint64_t at = g->index;

	while (at < end) {
		uint64_t data, hole;
		int r = io_next_data(load->delta->file, at, &data, &hole);

		if (r)
			return load_read_error(load, r);
		if (data >= end)
			break;
		/* Holes begin and end anywhere; entries are whole words counted from the index. */
		data = max_u64(at, g->index + round_down(max_u64(data, g->index) - g->index, 4));
		hole = min_u64(end, g->index + round_up(hole - g->index, 4));
		r = load_range(load, buffer, data, hole);
		if (r)
			return r;
		at = hole;
	}
	return 0;
}

/* A raw level: all of it is mapped where it is written to; else its holes read as zeros and need no entry. */
static int load_raw(const struct load *load)
{
	const struct geometry *g = &load->delta->geometry;
	uint64_t at = 0;

	while (at < g->size) {
		uint64_t data = at, hole = g->size;

		if (!load->writer) {
			int r = io_next_data(load->delta->file, at, &data, &hole);

			if (r)
				return load_read_error(load, r);
			if (data >= g->size)
				break;
			hole = min_u64(hole, g->size);
		}
		for (uint64_t v = data / g->cluster; v < div_round_up(hole, g->cluster); v++)
			map_cover(load->map, (uint32_t)v, load->level, (uint32_t)v + 1);
		at = hole;
	}
	return 0;
}

uint32_t load_file_clusters(const struct delta *delta, uint64_t file_size)
{
	const struct geometry *g = &delta->geometry;
	uint64_t count;

	if (!delta->format->has_index || (int64_t)file_size <= g->base)
		return g->first;
	count = div_round_up((uint64_t)((int64_t)file_size - g->base), g->cluster);
	return (uint32_t)max_u64(g->first, min_u64(count, (uint64_t)delta->format->last(g) + 1));
}

int load_delta(struct device *dev, unsigned level, struct map *map, struct writer *writer, struct ploop_error *err)
{
	const struct delta *delta = &dev->levels[level];
	struct load load = {
		.map = map, .writer = writer, .rescue = dev->read_only, .level = level, .delta = delta, .err = err
	};
	uint8_t *buffer;
	int r = io_size(delta->file, &load.file_size);

	if (r)
		return error_sys(err, r, PLOOP_EXIT_FSTAT, "%s: cannot tell its size", delta->file->path);
	if (!delta->format->has_index)
		return load_raw(&load);
	load.end = load_file_clusters(delta, load.file_size);
	buffer = io_buffer_new(LOAD_CHUNK);
	if (!buffer || (writer && writer_init_alloc(writer, load.end)))
		r = error_set(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s: no memory to read the index", delta->file->path);
	else
		r = load_index(&load, buffer);
	if (buffer)
		io_buffer_free(buffer, LOAD_CHUNK);
	return r;
}

int load_levels(struct device *dev, struct ploop_error *err)
{
	int r = 0;

	for (unsigned level = 0; level < dev->nlevels && !r; level++) {
		r = load_delta(dev, level, &dev->map, level == device_top_level(dev) ? dev->writer : NULL, err);
		if (!r)
			r = partials_load(dev, level, err);
	}
	return r;
}
