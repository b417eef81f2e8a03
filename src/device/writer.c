/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * writer.c - from the first byte written to a delta to the last.
 *
 * Order of writes:
 *  start   1. the delta is marked in use by a header that names no format extension, synced;
 *          2. the extension is rewritten so that its dirty bitmaps say that everything changed (cbt.h), synced, and only then
 *             named again, synced: it is never seen half rewritten, and a power cut in between costs the bitmaps, not the image;
 *             only then
 *          3. clusters at the end of the file that no entry names (left by a crash, or preallocated by another program)
 *             are cut off.
 *          When a crash left a table of partial clusters (partial.h) the header goes on naming the extension, and 2 is that the
 *          table is brought up to date.
 *  finish  after a commit with nothing in flight:
 *          1. the dirty bitmaps are written to free clusters (cbt.h);
 *          2. free clusters at the end of the file are cut off, synced;
 *          3. the in-use mark is cleared, and the new bitmaps are named, synced;
 *          4. the extension of before is cut off, if it was the end of the file; else device.c punches it.
 * A crash before start 1 changes nothing; between start 1 and finish 3 the mark stays, which makes the next open scan the
 * index, as it does anyway.
 */
#include "device/writer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "device/internal.h"
#include "format/extension.h"

#define FLAG_EMPTY 1u /* CIF_Empty */
#define EXTEND_BYTES (UINT64_C(64) << 20)
#define EXTEND_CLUSTERS 16

uint32_t writer_extension_cluster(const struct writer *writer)
{
	const struct geometry *g = &writer->delta->geometry;

	return (uint32_t)(((int64_t)g->extension - g->base) / g->cluster);
}

int writer_build_head(struct writer *writer, enum format_state state, uint8_t *sector)
{
	struct delta *delta = writer->delta;
	int r = io_pread(delta->file, sector, SECTOR, 0);

	if (r)
		return r;
	delta->geometry.state = state;
	if (state == FORMAT_CLEAN && alloc_end(&writer->alloc) > writer->alloc.first)
		delta->geometry.flags &= ~FLAG_EMPTY;
	delta->format->build(&delta->geometry, sector);
	memcpy(writer->commit.head, sector, COMMIT_HEAD);
	return 0;
}

/* Writes the header, durably, and nothing else of its sector. */
static int writer_write_head(struct writer *writer, enum format_state state)
{
	uint8_t sector[SECTOR];
	int r = writer_build_head(writer, state, sector);

	if (!r)
		r = io_pwrite(writer->delta->file, sector, sizeof(sector), 0);
	return r ? r : io_sync(writer->delta->file);
}

int writer_cut_tail(struct writer *writer)
{
	const struct geometry *g = &writer->delta->geometry;
	uint64_t end = alloc_end(&writer->alloc);
	uint64_t size;
	int r = io_size(writer->delta->file, &size);

	if (!r && size != geometry_offset(g, (uint32_t)end))
		r = io_truncate(writer->delta->file, geometry_offset(g, (uint32_t)end));
	if (r)
		return r;
	writer->alloc.file = end;
	writer->alloc.opened = end;
	return 0;
}

/* Rewrites the format extension, which the header does not name at this moment; with bitmaps that are nobody's here: format/extension.h.
 */
static int writer_spend_extension(struct writer *writer, uint64_t extension)
{
	struct geometry *g = &writer->delta->geometry;
	uint8_t *cluster = io_buffer_new(g->cluster);
	uint32_t k;
	int r;

	if (!cluster)
		return -ENOMEM;
	g->extension = extension;
	k = writer_extension_cluster(writer);
	r = io_pread(writer->delta->file, cluster, g->cluster, extension);
	if (!r && extension_spend(g, cluster)) {
		r = io_pwrite(writer->delta->file, cluster, g->cluster, extension);
		r = r ? r : io_sync(writer->delta->file);
		r = r ? r : writer_write_head(writer, FORMAT_IN_USE);
	} else if (!r) {
		alloc_untake(&writer->alloc, k, 1);
	}
	io_buffer_free(cluster, g->cluster);
	return r;
}

/* The extension of an image in use; the header names none at this moment. */
static int writer_put_extension(struct writer *writer, uint64_t extension)
{
	uint32_t k = 0;
	int r;

	if (!writer->heir)
		return extension ? writer_spend_extension(writer, extension) : 0;
	if (extension) {
		writer->delta->geometry.extension = extension;
		k = writer_extension_cluster(writer);
		writer->delta->geometry.extension = 0;
	}
	if (!writer->device->cbt.n) {
		if (k)
			alloc_untake(&writer->alloc, k, 1);
		return 0;
	}
	r = cbt_put(writer, k);
	return r ? r : writer_write_head(writer, FORMAT_IN_USE);
}

int writer_check(const struct delta *delta, struct ploop_error *err)
{
	const struct geometry *g = &delta->geometry;

	if (g->read_only)
		return error_set(err, -EROFS, PLOOP_EXIT_FORMAT, "%s: can only be opened read-only: %s",
				 delta->file->path, g->reason);
	if (delta->format->has_index &&
	    (geometry_offset(g, g->first) < geometry_pages(g) * FORMAT_PAGE || g->index > COMMIT_HEAD))
		return error_set(err, -EROFS, PLOOP_EXIT_FORMAT,
				 "%s: can only be opened read-only: its data starts inside the index's last page",
				 delta->file->path);
	return 0;
}

/* Makes the file long enough for clusters up to `end`, in steps large enough to be rare. The new part is a hole. */
static int writer_extend(struct writer *writer, uint64_t end)
{
	const struct geometry *g = &writer->delta->geometry;
	uint64_t step = max_u64(EXTEND_CLUSTERS, EXTEND_BYTES / g->cluster);
	uint64_t want;
	int r;

	if (end <= writer->alloc.file)
		return 0;
	want = min_u64(writer->alloc.limit, round_up(end, step));
	r = io_truncate(writer->delta->file, (uint64_t)g->base + want * g->cluster);
	if (r)
		return r;
	writer->alloc.file = want;
	writer->commit.written++;
	return 0;
}

int writer_allocate_last(struct writer *writer, uint32_t *ret)
{
	int r = alloc_take(&writer->alloc, 1, ret) ? writer_extend(writer, (uint64_t)*ret + 1) : -ENOSPC;

	if (r && r != -ENOSPC)
		alloc_untake(&writer->alloc, *ret, 1);
	return r;
}

/* Chooses file clusters: up to `count` in a row. Returns how many, or a negative errno. */
int writer_allocate(struct writer *writer, uint32_t count, uint32_t *ret)
{
	int r;

	count = alloc_take(&writer->alloc, count, ret);
	if (!count) {
		/* What was freed lately comes back with a commit. */
		commit_kick(&writer->commit);
		return -ENOSPC;
	}
	r = writer_extend(writer, (uint64_t)*ret + count);
	if (r) {
		alloc_untake(&writer->alloc, *ret, count);
		return r;
	}
	return (int)count;
}

uint32_t writer_entry(const struct writer *writer, uint32_t v)
{
	const struct map *map = &writer->device->map;

	if (writer->own.cluster)
		return writer->own.cluster[v];
	return map_in(map, v, writer->level) ? map->cluster[v] : 0;
}

void writer_set_entry(struct writer *writer, uint32_t v, uint32_t cluster)
{
	if (writer->own.cluster)
		writer->own.cluster[v] = cluster;
	commit_dirty(&writer->commit, v);
}

void writer_set_geometry(struct writer *writer, const struct geometry *geometry)
{
	writer->delta->geometry = *geometry;
	writer->delta->format->build(&writer->delta->geometry, writer->commit.head);
	commit_dirty(&writer->commit, 0);
}

void writer_drop_extension(struct writer *writer)
{
	struct geometry *g = &writer->delta->geometry;
	uint32_t cluster;

	if (!g->extension)
		return;
	cluster = writer_extension_cluster(writer);
	g->extension = 0;
	writer_set_geometry(writer, g);
	alloc_free(&writer->alloc, cluster, false);
}

int writer_start(struct writer *writer, struct ploop_error *err)
{
	uint64_t extension;
	int r;

	/* What a process that died left in the cache of the disk is seen, so that the first flush must make it durable. With
	 * an index the mark does that. */
	writer->commit.written++;
	if (!writer->delta->format->has_index)
		return 0;
	if (writer->device->partials->writer == writer) {
		r = writer_write_head(writer, FORMAT_IN_USE);
		r = r ? r : partials_scrub(writer->device->partials);
	} else {
		extension = writer->delta->geometry.extension;
		writer->delta->geometry.extension = 0;
		r = writer_write_head(writer, FORMAT_IN_USE);
		if (!r)
			r = writer_put_extension(writer, extension);
	}
	if (!r)
		r = writer_cut_tail(writer);
	if (r)
		return error_sys(err, r, PLOOP_EXIT_WRITE, "%s: cannot mark the image as in use",
				 writer->delta->file->path);
	return 0;
}

int writer_open_lower(struct device *device, unsigned level, bool heir, struct writer **ret, struct ploop_error *err)
{
	struct writer *writer = NULL;
	int r = writer_new(device, level, &writer);

	if (!r)
		writer->heir = heir;
	if (!r)
		r = map_init(&writer->own, device->map.count);
	if (r)
		error_set(err, r, PLOOP_EXIT_MALLOC, "no memory for the index of %s", device->levels[level].file->path);
	if (!r && writer->delta->format->has_index)
		r = load_delta(device, level, &writer->own, writer, err);
	if (!r)
		r = writer_start(writer, err);
	if (r) {
		writer_free(writer);
		return r;
	}
	if (writer->shadow)
		shadow_level_activate(writer->shadow);
	*ret = writer;
	return 0;
}

int writer_finish(struct writer *writer)
{
	uint32_t old = 0;
	int r;

	if (!writer->delta->format->has_index)
		return io_sync(writer->delta->file);
	/* Bitmaps that cannot be written stay as they are in the file: everything has changed. */
	if (cbt_may_save(writer))
		cbt_save(writer, &old);
	r = writer_cut_tail(writer);
	if (!r)
		r = io_sync(writer->delta->file);
	if (!r)
		r = writer_write_head(writer, FORMAT_CLEAN);
	if (!r && old) {
		alloc_untake(&writer->alloc, old, 1);
		writer_cut_tail(writer);
		writer->useless = old < alloc_end(&writer->alloc) ? old : 0;
	}
	return r;
}

int writer_new(struct device *device, unsigned level, struct writer **ret)
{
	struct writer *writer = calloc(1, sizeof(*writer));
	int r;

	if (!writer)
		return -ENOMEM;
	writer->device = device;
	writer->level = level;
	writer->heir = level >= device_top_level(device);
	writer->delta = &device->levels[level];
	r = commit_init(&writer->commit, writer);
	if (!r && device->shadow)
		r = shadow_level_new(device->shadow, writer->delta->file->path,
				     writer->delta->format->has_index ? device->map.count : 0, &writer->shadow);
	if (r) {
		writer_free(writer);
		return r;
	}
	*ret = writer;
	return 0;
}

int writer_init_alloc(struct writer *writer, uint64_t file)
{
	const struct delta *delta = writer->delta;
	const struct geometry *g = &delta->geometry;
	/* Room for everything that can be mapped, for what is leaked in the file, and for what waits for a commit. */
	uint64_t limit = min_u64((uint64_t)delta->format->last(g) + 1, file + 2 * (uint64_t)g->clusters + 4096);
	int r = alloc_init(&writer->alloc, g->first, file, limit);

	if (!r && g->extension && !g->read_only)
		alloc_claim(&writer->alloc, writer_extension_cluster(writer));
	return r;
}

void writer_free(struct writer *writer)
{
	if (!writer)
		return;
	commit_fini(&writer->commit);
	alloc_fini(&writer->alloc);
	map_fini(&writer->own);
	shadow_level_free(writer->shadow);
	free(writer);
}
