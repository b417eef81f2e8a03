/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* check-index.c - every entry of the index, streamed: holes of a sparse index cost nothing. */
#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/le.h"
#include "job/check-private.h"
#include "job/undo.h"

#define PAGES (CHECK_CHUNK / FORMAT_PAGE)

/* The part of the index that is in memory. */
struct chunk {
	uint64_t offset; /* in the file; a multiple of FORMAT_PAGE */
	uint32_t length;
	bool changed;
	bool pages[PAGES]; /* those that are changed */
	uint64_t padding;  /* wrong bytes behind the index */
};

static int failed(struct check *check, int r, const char *what)
{
	return error_sys(check->err, r, r == -ENOSPC ? PLOOP_EXIT_FALLOCATE : PLOOP_EXIT_WRITE, "%s: cannot %s",
			 check->file->path, what);
}

static void put_entry(struct check *check, struct chunk *chunk, uint32_t at, uint32_t entry)
{
	if (!chunk->changed)
		memcpy(check->before, check->chunk, chunk->length);
	chunk->changed = true;
	chunk->pages[at / FORMAT_PAGE] = true;
	le32_put(check->chunk + at, entry);
}

/* Copies what of file cluster `from` is no hole. The rest of `to` lies behind the end of the file and so reads as zeros. */
static int copy_data(struct check *check, uint64_t from, uint64_t to, void *buffer)
{
	uint64_t start, end, stop = from + check->g.cluster;
	int r;

	for (uint64_t at = from; at < stop; at = end) {
		r = io_next_data(check->file, at, &start, &end);
		if (r || start >= stop || end <= at)
			return r;
		start = max_u64(start, at);
		end = min_u64(min_u64(end, stop), start + CHECK_CHUNK);
		r = io_pread(check->file, buffer, end - start, start);
		if (!r)
			r = io_pwrite(check->file, buffer, end - start, to + (start - from));
		if (r)
			return r;
	}
	return 0;
}

/* Gives a duplicate a cluster of its own at the end of the file. */
static int copy_cluster(struct check *check, uint32_t from, uint32_t *ret)
{
	const struct geometry *g = &check->g;
	uint32_t to = (uint32_t)check->places;
	uint64_t end;
	void *buffer;
	int r;

	if (check->places > format_ploop1.last(g))
		return failed(check, -EFBIG, "copy a cluster");
	buffer = io_buffer_new(CHECK_CHUNK);
	if (!buffer)
		return failed(check, -ENOMEM, "copy a cluster");
	end = geometry_offset(g, to) + g->cluster;
	r = copy_data(check, geometry_offset(g, from), geometry_offset(g, to), buffer);
	io_buffer_free(buffer, CHECK_CHUNK);
	if (!r)
		r = io_truncate(check->file, end);
	if (r)
		return failed(check, r, "copy a cluster");
	check->unsynced_copies = true;
	*ret = to;
	return check_grown(check, end);
}

/* What is wrong with an entry that is not 0, in the order of how bad it is; PLOOP_CHECK_KINDS when nothing is. */
static enum ploop_check_kind judge_entry(const struct check *check, uint32_t v, uint32_t entry, uint32_t *ret_place)
{
	const struct geometry *g = &check->g;

	if (v >= div_round_up(g->size, g->cluster))
		return PLOOP_CHECK_BEYOND_DISK;
	if (format_ploop1.decode(g, entry, ret_place)) {
		if (entry == PLOOP1_ENTRY_NONE)
			return PLOOP_CHECK_BEYOND_FILE;
		if ((g->version == 1 ? SECTOR : g->cluster) * (uint64_t)entry < geometry_offset(g, g->first))
			return PLOOP_CHECK_BEFORE_DATA;
		return PLOOP_CHECK_UNALIGNED;
	}
	if (*ret_place >= check->places)
		return PLOOP_CHECK_BEYOND_FILE;
	return bitmap_test(&check->used, *ret_place) ? PLOOP_CHECK_DUPLICATE : PLOOP_CHECK_KINDS;
}

static bool report_entry(struct check *check, enum ploop_check_kind kind, uint32_t v, uint32_t entry, uint32_t place)
{
	uint64_t sector = (uint64_t)v * (check->g.cluster / SECTOR);
	struct check_where where = { v, kind == PLOOP_CHECK_DUPLICATE ? place : CHECK_NOWHERE, 0 };

	switch (kind) {
	case PLOOP_CHECK_BEYOND_DISK:
		return check_found(check, kind, where, "Data cluster (%u) beyond block device size", v);
	case PLOOP_CHECK_UNALIGNED:
		return check_found(check, kind, where, "L2 slot (%u) corrupted: no cluster starts at sector %u", v,
				   entry);
	case PLOOP_CHECK_BEFORE_DATA:
		return check_found(check, kind, where, "L2 slot (%u) corrupted: %u lies in the index", v, entry);
	case PLOOP_CHECK_BEYOND_FILE:
		return check_found(check, kind, where, "Data cluster %u beyond EOF, vsec=%llu", entry,
				   (unsigned long long)sector);
	default:
		return check_found(check, kind, where, "Block %u is used more than once, vsec=%llu", place,
				   (unsigned long long)sector);
	}
}

/*
 * The extension lies where this entry's data is. The data wins. The bitmaps of an image that was not closed do not count, so that they
 * may well have been overwritten; its extension itself is going to be written, and must not be then.
 */
static void check_overlap(struct check *check, uint32_t v, uint32_t place)
{
	if (!bitmap_test(&check->extension, place))
		return;
	if (check->image->in_use && place != check_place_of(check, check->g.extension))
		return;
	if (check_found(check, PLOOP_CHECK_BITMAP, (struct check_where){ v, place, 0 },
			"Block %u holds data and a part of the format extension", place))
		check->drop_extension = true;
}

/* First walk: everything but duplicates, which are only counted. */
static int check_entry(struct check *check, struct chunk *chunk, uint32_t at, uint32_t v)
{
	uint32_t entry = le32_get(check->chunk + at), place = 0;
	enum ploop_check_kind kind = judge_entry(check, v, entry, &place);

	switch (kind) {
	case PLOOP_CHECK_DUPLICATE:
		check->duplicates++;
		check->image->mapped++;
		return 0;
	case PLOOP_CHECK_KINDS:
		bitmap_set(&check->used, place);
		check->image->mapped++;
		check_overlap(check, v, place);
		return 0;
	default:
		if (!report_entry(check, kind, v, entry, place))
			return 0;
		put_entry(check, chunk, at, 0);
		return kind == PLOOP_CHECK_BEYOND_DISK ? 0 : check_spend_extension(check);
	}
}

/* Second walk, when there are duplicates: each but the first to point to a cluster gets a copy of its own. */
static int split_entry(struct check *check, struct chunk *chunk, uint32_t at, uint32_t v)
{
	uint32_t entry = le32_get(check->chunk + at), place = 0;
	enum ploop_check_kind kind = judge_entry(check, v, entry, &place);
	int r;

	if (kind == PLOOP_CHECK_KINDS)
		bitmap_set(&check->used, place);
	if (kind != PLOOP_CHECK_DUPLICATE || !report_entry(check, kind, v, entry, place))
		return 0;
	r = copy_cluster(check, place, &place);
	if (r)
		return r;
	bitmap_set(&check->used, place);
	put_entry(check, chunk, at, format_ploop1.encode(&check->g, place));
	return 0;
}

/* The bytes of a page that belong to the index: those of the header are written by check_close_header() alone. */
static uint32_t page_bytes(const struct chunk *chunk, unsigned page, uint32_t *ret_at)
{
	uint32_t at = page * FORMAT_PAGE, end = (uint32_t)min_u64(at + FORMAT_PAGE, chunk->length);

	if (!chunk->offset && !page)
		at = PLOOP1_HEADER;
	*ret_at = at;
	return end - at;
}

static int save_chunk(struct check *check, const struct chunk *chunk)
{
	uint32_t at, len;
	int r = 0;

	for (unsigned page = 0; !r && page < PAGES; page++) {
		if (!chunk->pages[page])
			continue;
		len = page_bytes(chunk, page, &at);
		r = undo_save(check->undo, chunk->offset + at, check->before + at, check->chunk + at, len);
	}
	return r ? r : undo_sync(check->undo);
}

/* Rules 1 and 2 of check.c. */
static int write_chunk(struct check *check, const struct chunk *chunk)
{
	uint32_t at, len;
	int r = 0;

	if (check->unsynced_copies)
		r = io_sync(check->file);
	check->unsynced_copies = false;
	if (!r && check->undo)
		r = save_chunk(check, chunk);
	for (unsigned page = 0; !r && page < PAGES; page++) {
		if (!chunk->pages[page])
			continue;
		len = page_bytes(chunk, page, &at);
		r = io_pwrite(check->file, check->chunk + at, len, chunk->offset + at);
	}
	return r ? failed(check, r, "write the index") : 0;
}

/* Garbage behind the index is one finding however much it is. */
static void check_padding(struct check *check, struct chunk *chunk, uint32_t at, uint32_t end)
{
	uint32_t from = at;

	for (; at < end; at++)
		chunk->padding += check->chunk[at] != 0;
	if (!chunk->padding)
		return;
	if (!check_found(
		    check, PLOOP_CHECK_PADDING, (struct check_where){ CHECK_NOWHERE, CHECK_NOWHERE, chunk->padding },
		    "The padding behind the index has %llu bytes that are not 0", (unsigned long long)chunk->padding))
		return;
	for (at = from; at < end; at += 4)
		if (le32_get(check->chunk + at))
			put_entry(check, chunk, at, 0);
}

typedef int (*entry_fn)(struct check *check, struct chunk *chunk, uint32_t at, uint32_t v);

static int walk_chunk(struct check *check, struct chunk *chunk, entry_fn each)
{
	uint64_t entries_end = PLOOP1_HEADER + 4 * (uint64_t)check->g.clusters;
	uint32_t at = chunk->offset ? 0 : PLOOP1_HEADER;
	uint32_t end = (uint32_t)min_u64(chunk->length, max_u64(entries_end, chunk->offset) - chunk->offset);
	int r = io_pread(check->file, check->chunk, chunk->length, chunk->offset);

	if (r)
		return error_sys(check->err, r, PLOOP_EXIT_READ, "%s: cannot read the index", check->file->path);
	for (; !r && at < end; at += 4)
		if (le32_get(check->chunk + at))
			r = each(check, chunk, at, (uint32_t)((chunk->offset + at - PLOOP1_HEADER) / 4));
	if (!r && each == check_entry)
		check_padding(check, chunk, at, chunk->length);
	return !r && chunk->changed ? write_chunk(check, chunk) : r;
}

static int walk(struct check *check, const char *stage, entry_fn each)
{
	const struct ploop_check_options *options = check->options;
	uint64_t stop = geometry_offset(&check->g, check->g.first), start, end;
	int r;

	for (uint64_t at = 0; at < stop; at = end) {
		struct chunk chunk = { 0 };

		if (options->progress && options->progress(options->data, stage, at, stop))
			return error_set(check->err, -ECANCELED, PLOOP_EXIT_ABORT, "%s: check cancelled",
					 check->file->path);
		r = io_next_data(check->file, at, &start, &end);
		if (r)
			return error_sys(check->err, r, PLOOP_EXIT_READ, "cannot read %s", check->file->path);
		if (start >= stop || end <= at)
			break;
		chunk.offset = max_u64(at, round_down(start, FORMAT_PAGE));
		end = min_u64(min_u64(round_up(end, FORMAT_PAGE), stop), chunk.offset + CHECK_CHUNK);
		chunk.length = (uint32_t)(end - chunk.offset);
		r = walk_chunk(check, &chunk, each);
		if (r)
			return r;
	}
	r = check->image->changed ? io_sync(check->file) : 0;
	return r ? failed(check, r, "write the index") : 0;
}

int check_index(struct check *check)
{
	int r = walk(check, "index", check_entry);

	if (r || !check->duplicates)
		return r;
	bitmap_fini(&check->used);
	r = bitmap_init(&check->used, max_u64(check->places, 1));
	if (!r)
		r = check_plan_length(check, check->size + check->duplicates * check->g.cluster);
	if (r)
		return failed(check, r, "check the index");
	return walk(check, "duplicates", split_entry);
}
