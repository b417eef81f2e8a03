/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * shadow-replay.c - the notes of a shadow into the file of a delta.
 *
 * Order of writes, which is that of a commit:
 *  1. The file is synced: what the notes name was written by a process that is no more.
 *  2. Pages of the table of partial clusters and of the index that have notes are read, changed and written.
 *  3. The file is synced.
 * Why a mix of old and new entries is a right image, should the power be cut here, is said in commit.c and partial.h: a cluster
 * has a new entry only when its old one is durably gone, and a record leaves the table only when its entry is durable.
 */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/le.h"
#include "device/internal.h"
#include "device/shadow.h"

/* Puts the entries of one index page that have notes into it. False: there are none. */
static bool apply_page(const struct shadow_level *level, const struct delta *delta, uint64_t page, uint8_t *bytes)
{
	const struct geometry *g = &delta->geometry;
	uint32_t end = geometry_page_end(g, page);
	bool any = false;

	for (uint32_t v = geometry_page_first(g, page); v < end && v < level->count; v++) {
		uint32_t note = level->entries[v];

		if (!note)
			continue;
		any = true;
		if (bytes)
			le32_put(bytes + (g->index + 4 * (uint64_t)v) % FORMAT_PAGE,
				 note == 1 ? 0 : delta->format->encode(g, note - 1));
	}
	return any;
}

static int replay_index(const struct shadow_level *level, const struct delta *delta, uint8_t *bytes)
{
	int r = 0;

	for (uint64_t page = 0; page < geometry_pages(&delta->geometry) && !r; page++) {
		if (!apply_page(level, delta, page, NULL))
			continue;
		r = io_pread(delta->file, bytes, FORMAT_PAGE, page * FORMAT_PAGE);
		if (r)
			break;
		(void)apply_page(level, delta, page, bytes);
		r = io_pwrite(delta->file, bytes, FORMAT_PAGE, page * FORMAT_PAGE);
	}
	return r;
}

/* Over the older copy of the page, as a commit does. */
static int replay_records(const struct shadow_level *level, const struct delta *delta,
			  const struct partial_table *table, uint32_t page, uint8_t *bytes)
{
	struct partial_record records[PARTIAL_RECORDS];
	uint64_t sequence[2] = { 0 };
	bool good[2];
	unsigned copy;
	int r = io_pread(delta->file, bytes, 2 * FORMAT_PAGE, partial_page_offset(table, page, 0));

	if (r)
		return r;
	for (copy = 0; copy < 2; copy++)
		good[copy] = partial_page_get(bytes + (size_t)copy * FORMAT_PAGE, &sequence[copy], records);
	if (!good[0] && !good[1])
		return -EUCLEAN;
	/* The one that counts stays as it is. */
	copy = !good[1] || (good[0] && sequence[0] >= sequence[1]);
	memset(records, 0, sizeof(records));
	for (unsigned i = 0; i < PARTIAL_RECORDS && page * PARTIAL_RECORDS + i < level->npartials; i++) {
		const struct shadow_partial *partial = &level->partials[page * PARTIAL_RECORDS + i];

		if (!partial->cluster)
			continue;
		records[i].v = partial->v;
		records[i].entry = delta->format->encode(&delta->geometry, partial->cluster);
		memcpy(records[i].valid, partial->valid, sizeof(partial->valid));
	}
	partial_page_put(bytes, sequence[!copy] + 1, records);
	return io_pwrite(delta->file, bytes, FORMAT_PAGE, partial_page_offset(table, page, copy));
}

static bool any_partial(const struct shadow_level *level)
{
	for (uint32_t i = 0; i < level->npartials; i++)
		if (level->partials[i].cluster)
			return true;
	return false;
}

static int replay_table(const struct shadow_level *level, const struct delta *delta, uint8_t *bytes,
			struct ploop_error *err)
{
	struct partial_table table;
	uint64_t size;
	int r;

	if (!any_partial(level))
		return 0;
	r = partials_find_table(delta, &table, &size, err);
	if (!r) /* they are there only while the header names the table */
		return error_set(err, -EUCLEAN, PLOOP_EXIT_FORMAT, "%s: its table of partial clusters is gone",
				 delta->file->path);
	if (r < 0)
		return r;
	r = 0;
	for (uint32_t page = 0; page < table.pages && !r; page++)
		r = replay_records(level, delta, &table, page, bytes);
	return r ? error_sys(err, r, PLOOP_EXIT_WRITE, "%s: the table of partial clusters", delta->file->path) : 0;
}

int shadow_replay(struct shadow *shadow, const struct delta *delta, struct ploop_error *err)
{
	struct shadow_level *level;
	uint8_t *bytes;
	int r = shadow_level_find(shadow, delta->file->path, &level);

	if (r == -ENOENT)
		return 0;
	if (r)
		return error_sys(err, r, PLOOP_EXIT_MALLOC, "%s", delta->file->path);
	bytes = io_buffer_new(2 * FORMAT_PAGE);
	r = bytes ? io_sync(delta->file) : -ENOMEM;
	if (!r)
		r = replay_table(level, delta, bytes, err);
	if (!r && delta->format->has_index)
		r = replay_index(level, delta, bytes);
	if (!r)
		r = io_sync(delta->file);
	if (bytes)
		io_buffer_free(bytes, 2 * FORMAT_PAGE);
	shadow_level_unmap(level);
	if (r && !(err && err->code))
		return error_sys(err, r, PLOOP_EXIT_WRITE, "%s: what was written lately cannot be put into its index",
				 delta->file->path);
	return r;
}
