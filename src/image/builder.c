/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * builder.c - see builder.h. Order of writes:
 *  1. Clusters are given out from the front of the file; one that was discarded is given out again after it was zeroed.
 *  2. A resumable image has its header, marked as in use, before anything else, and each entry after the cluster has its first
 *     bytes. Nobody relies on what a crash leaves: who resumes compares the content.
 *  3. builder_finish(): index, then the header of a closed image, then the file gets its length and is made durable. Only then
 *     it may be given its name.
 */
#include "image/builder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bitmap.h"
#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "format/format.h"
#include "format/ploop1.h"
#include "image/create.h"

struct builder {
	struct builder_out *out;
	const struct format *format;
	struct geometry g;
	bool base, resumable;
	uint32_t *entries; /* file cluster of each virtual one; NULL for raw */
	uint32_t next;     /* the file cluster behind all that were ever used */
	uint32_t *freed;   /* used once, and free again */
	size_t nfreed, max_freed;
};

const struct geometry *builder_geometry(const struct builder *builder)
{
	return &builder->g;
}

static int write_head(struct builder *b, enum format_state state)
{
	uint8_t head[FORMAT_HEAD] = { 0 };

	b->g.state = state;
	if (b->next > b->g.first)
		b->g.flags &= ~PLOOP1_FLAG_EMPTY;
	b->format->build(&b->g, head);
	return b->out->write(b->out, head, b->g.index, 0);
}

static int write_entry(struct builder *b, uint32_t v)
{
	uint32_t entry = b->entries[v] ? htole32(b->format->encode(&b->g, b->entries[v])) : 0;

	return b->out->write(b->out, &entry, sizeof(entry), b->g.index + 4 * (uint64_t)v);
}

int builder_new(const struct builder_config *config, struct builder_out *out, struct builder **ret,
		struct ploop_error *err)
{
	struct image_params params = {
		.mode = config->raw ? IMAGE_RAW : IMAGE_EXPANDED,
		.version = config->version,
		.cluster = config->cluster,
	};
	struct builder *b;
	int r;

	/* What is made here may copy what others made, whose disks need not end with a whole cluster. */
	if (!config->cluster || !checked_round_up(config->size, config->cluster, &params.size))
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "clusters of %u bytes", config->cluster);
	b = calloc(1, sizeof(*b));

	if (!b)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "image");
	b->out = out;
	b->format = config->raw ? &format_raw : &format_ploop1;
	b->base = config->base;
	b->resumable = config->resumable;
	r = image_plan(&params, &b->g, err);
	b->g.size = config->size;
	if (!r && b->format->has_index) {
		b->next = b->g.first;
		b->entries = calloc(b->g.clusters, sizeof(*b->entries));
		if (!b->entries)
			r = error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "image");
		else if (b->resumable && !out->size && (r = write_head(b, FORMAT_IN_USE)) < 0)
			error_sys(err, r, PLOOP_EXIT_WRITE, "image");
	}
	if (r < 0)
		builder_free(b);
	else
		*ret = b;
	return r;
}

void builder_free(struct builder *b)
{
	if (!b)
		return;
	free(b->entries);
	free(b->freed);
	free(b);
}

/* Whether the header in the file is one that we would have written. */
static int check_head(struct builder *b)
{
	const struct geometry *want = &b->g;
	uint8_t head[FORMAT_HEAD];
	struct geometry g;
	int r = b->out->read(b->out, head, sizeof(head), 0);

	if (!r)
		r = b->format->parse(head, sizeof(head), b->out->size, 0, &g, NULL);
	if (r < 0)
		return r;
	if (g.version != want->version || g.size != want->size || g.cluster != want->cluster || g.base != want->base ||
	    g.first != want->first || g.clusters != want->clusters)
		return -EINVAL;
	return 0;
}

/* Takes over an entry when it is a possible one; else the cluster counts as not there. */
static void adopt(struct builder *b, struct bitmap *used, uint32_t v, uint32_t stored, uint32_t end)
{
	uint32_t k;

	if (b->format->decode(&b->g, stored, &k) < 0 || !k || k >= end || bitmap_set(used, k))
		return;
	b->entries[v] = k;
	if (k >= b->next)
		b->next = k + 1;
}

static int load_entries(struct builder *b, struct bitmap *used, uint32_t end)
{
	uint32_t stored[FORMAT_PAGE / 4];

	for (uint32_t v = 0; v < b->g.clusters;) {
		uint32_t n = (uint32_t)min_u64(ARRAY_SIZE(stored), b->g.clusters - v);
		int r = b->out->read(b->out, stored, n * sizeof(*stored), b->g.index + 4 * (uint64_t)v);

		if (r < 0)
			return r;
		for (uint32_t i = 0; i < n; i++)
			adopt(b, used, v + i, le32toh(stored[i]), end);
		v += n;
	}
	return 0;
}

static int push_freed(struct builder *b, uint32_t k)
{
	if (b->nfreed == b->max_freed) {
		size_t max = b->max_freed ? 2 * b->max_freed : 64;
		uint32_t *freed = reallocarray(b->freed, max, sizeof(*freed));

		if (!freed)
			return -ENOMEM;
		b->freed = freed;
		b->max_freed = max;
	}
	b->freed[b->nfreed++] = k;
	return 0;
}

int builder_resume(struct builder *b)
{
	uint64_t end;
	struct bitmap used;
	int r;

	if (!b->entries)
		return -EINVAL;
	/* It broke off before the first cluster, perhaps before the header. */
	if (b->out->size < geometry_offset(&b->g, b->g.first))
		return write_head(b, FORMAT_IN_USE);
	r = check_head(b);
	if (r < 0)
		return r;
	end = div_round_up(b->out->size - (uint64_t)geometry_offset(&b->g, b->g.first), b->g.cluster) + b->g.first;
	end = min_u64(end, (uint64_t)b->format->last(&b->g) + 1);
	r = bitmap_init(&used, end);
	if (r < 0)
		return r;
	r = load_entries(b, &used, (uint32_t)end);
	for (uint64_t k = bitmap_next_clear(&used, b->g.first); r == 0 && k < b->next;
	     k = bitmap_next_clear(&used, k + 1))
		r = push_freed(b, (uint32_t)k);
	/* Behind the last entry there may be bytes that lost theirs. */
	if (!r && b->next < end)
		r = b->out->zero(b->out, geometry_offset(&b->g, b->next), (end - b->next) * (uint64_t)b->g.cluster);
	bitmap_fini(&used);
	return r;
}

/* Gives virtual cluster v a place in the file that reads as zeros. */
static int place(struct builder *b, uint32_t v)
{
	int r = 0;

	if (b->nfreed) {
		uint32_t k = b->freed[b->nfreed - 1];

		r = b->out->zero(b->out, geometry_offset(&b->g, k), b->g.cluster);
		if (r < 0)
			return r;
		b->nfreed--;
		b->entries[v] = k;
		return 0;
	}
	if (b->next > b->format->last(&b->g))
		return -EFBIG;
	b->entries[v] = b->next++;
	return 0;
}

static uint64_t place_of(const struct builder *b, uint64_t offset)
{
	return geometry_offset(&b->g, b->entries[offset / b->g.cluster]) + offset % b->g.cluster;
}

/* From `offset` to the end of its cluster, at most `len`. */
static uint64_t piece_at(const struct builder *b, uint64_t offset, uint64_t len)
{
	return min_u64(len, b->g.cluster - offset % b->g.cluster);
}

int builder_write(struct builder *b, const void *data, uint64_t len, uint64_t offset)
{
	const char *p = data;

	if (!b->entries)
		return b->out->write(b->out, data, len, offset);
	while (len) {
		uint64_t n = piece_at(b, offset, len);
		uint32_t v = (uint32_t)(offset / b->g.cluster);
		bool fresh = !b->entries[v];
		int r = fresh ? place(b, v) : 0;

		if (!r)
			r = b->out->write(b->out, p, n, place_of(b, offset));
		if (!r && fresh && b->resumable)
			r = write_entry(b, v);
		if (r < 0)
			return r;
		p += n;
		offset += n;
		len -= n;
	}
	return 0;
}

int builder_clone(struct builder *b, int fd, uint64_t from, uint64_t len, uint64_t offset)
{
	if (!b->out->clone)
		return -EOPNOTSUPP;
	if (!b->entries)
		return b->out->clone(b->out, fd, from, len, offset);
	for (uint64_t done = 0; done < len;) {
		uint64_t n = piece_at(b, offset + done, len - done);
		uint32_t v = (uint32_t)((offset + done) / b->g.cluster);
		bool fresh = !b->entries[v];
		int r = fresh ? place(b, v) : 0;

		if (!r)
			r = b->out->clone(b->out, fd, from + done, n, place_of(b, offset + done));
		if (!r && fresh && b->resumable)
			r = write_entry(b, v);
		if (r < 0)
			return r;
		done += n;
	}
	return 0;
}

static int zero_piece(struct builder *b, uint64_t offset, uint64_t len)
{
	uint32_t v = (uint32_t)(offset / b->g.cluster);
	int r;

	if (b->entries[v])
		return b->out->zero(b->out, place_of(b, offset), len);
	if (b->base)
		return 0;
	r = place(b, v);
	return !r && b->resumable ? write_entry(b, v) : r;
}

int builder_zero(struct builder *b, uint64_t offset, uint64_t len)
{
	int r = 0;

	if (!b->entries)
		return b->out->zero(b->out, offset, len);
	while (len && !r) {
		uint64_t n = piece_at(b, offset, len);

		r = zero_piece(b, offset, n);
		offset += n;
		len -= n;
	}
	return r;
}

int builder_discard(struct builder *b, uint64_t offset, uint64_t len)
{
	uint64_t end = offset + len;
	int r = 0;

	if (!b->entries)
		return b->out->zero(b->out, offset, len);
	if (offset % b->g.cluster || (end % b->g.cluster && end != b->g.size))
		return -EINVAL;
	for (uint64_t v = offset / b->g.cluster; !r && v * b->g.cluster < end; v++) {
		uint32_t k = b->entries[v];

		if (!k)
			continue;
		b->entries[v] = 0;
		r = push_freed(b, k);
		if (!r && b->resumable)
			r = write_entry(b, (uint32_t)v);
	}
	return r;
}

uint32_t builder_next(const struct builder *b, uint32_t v)
{
	for (; b->entries && v < b->g.clusters; v++)
		if (b->entries[v])
			return v;
	return UINT32_MAX;
}

int builder_read(struct builder *b, uint32_t v, void *data)
{
	return b->out->read(b->out, data, b->g.cluster, geometry_offset(&b->g, b->entries[v]));
}

/* One index page's worth; pages without an entry stay the hole that they are, unless a resumable image wrote there. */
static int write_page(struct builder *b, uint32_t first, uint32_t end)
{
	uint32_t stored[FORMAT_PAGE / 4];
	bool any = b->resumable;

	for (uint32_t v = first; v < end; v++) {
		stored[v - first] = b->entries[v] ? htole32(b->format->encode(&b->g, b->entries[v])) : 0;
		any = any || stored[v - first];
	}
	return any ? b->out->write(b->out, stored, (end - first) * sizeof(*stored), b->g.index + 4 * (uint64_t)first)
		   : 0;
}

int builder_finish(struct builder *b)
{
	int r = 0;

	if (!b->entries)
		return b->out->finish(b->out, b->g.size);
	for (uint64_t page = 0; !r && page < geometry_pages(&b->g); page++) {
		uint32_t first = geometry_page_first(&b->g, page), end = geometry_page_end(&b->g, page);

		if (first < end)
			r = write_page(b, first, end);
	}
	if (!r)
		r = write_head(b, FORMAT_CLEAN);
	return r < 0 ? r : b->out->finish(b->out, geometry_offset(&b->g, b->next));
}
