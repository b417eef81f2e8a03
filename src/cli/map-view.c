/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* map-view.c - walks the extents of a disk once and keeps what numbers and pictures need, whatever the disk's size. */
#include "cli/map-view.h"

#include <errno.h>
#include <stdlib.h>

#include "base/error.h"

#define MAP_ROW 64

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Which of `cells` equal parts of [0, size) holds `at`. */
static unsigned cell_of(uint64_t at, uint64_t size, unsigned cells)
{
	unsigned cell = size ? (unsigned)((long double)at * cells / size) : 0;

	return cell < cells ? cell : cells - 1;
}

static void view_add_to_file(struct map_view *view, struct map_level_view *file, const struct ploop_extent *extent)
{
	unsigned first = cell_of(extent->file_offset, file->level.length, MAP_CELLS);
	unsigned last = cell_of(extent->file_offset + extent->length - 1, file->level.length, MAP_CELLS);

	for (unsigned cell = first; cell <= last; cell++) {
		uint64_t start = (uint64_t)((long double)cell * file->level.length / MAP_CELLS);
		uint64_t into = start > extent->file_offset ? start - extent->file_offset : 0;

		file->disk_at[cell] =
			(int16_t)cell_of(extent->offset + least(into, extent->length - 1), view->size, view->cells);
	}
}

/* `most` holds, for each cell, the length of the longest piece so far. */
static void view_add(struct map_view *view, const struct ploop_extent *extent, uint64_t *most)
{
	struct map_level_view *file = &view->levels[extent->level];
	unsigned first = cell_of(extent->offset, view->size, view->cells);
	unsigned last = cell_of(extent->offset + extent->length - 1, view->size, view->cells);

	view->mapped += extent->length;
	view->pieces++;
	file->mapped += extent->length;
	file->pieces++;
	for (unsigned cell = first; cell <= last; cell++) {
		file->seen[cell] = true;
		if (extent->length > most[cell]) {
			most[cell] = extent->length;
			view->level_at[cell] = (int16_t)extent->level;
		}
	}
	view_add_to_file(view, file, extent);
}

static int view_open_levels(struct map_view *view, struct ploop_disk *disk, struct ploop_error *err)
{
	view->nlevels = ploop_disk_levels(disk);
	view->levels = calloc(view->nlevels, sizeof(*view->levels));
	if (!view->levels)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "a map of %u files", view->nlevels);
	for (unsigned i = 0; i < view->nlevels; i++) {
		int r = ploop_disk_level(disk, i, &view->levels[i].level, err);

		if (r < 0)
			return r;
		for (unsigned cell = 0; cell < MAP_CELLS; cell++)
			view->levels[i].disk_at[cell] = MAP_NOWHERE;
	}
	return 0;
}

int map_view_new(struct ploop_disk *disk, struct map_view **ret, struct ploop_error *err)
{
	struct map_view *view = calloc(1, sizeof(*view));
	uint64_t most[MAP_CELLS] = { 0 };
	struct ploop_extent extent;
	int r;

	if (!view)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "a map");
	view->size = ploop_disk_size(disk);
	view->cluster = ploop_disk_cluster(disk);
	view->cells = (unsigned)least(MAP_CELLS, (view->size + view->cluster - 1) / view->cluster);
	for (unsigned cell = 0; cell < MAP_CELLS; cell++)
		view->level_at[cell] = MAP_NOWHERE;
	r = view_open_levels(view, disk, err);
	if (r < 0) {
		map_view_free(view);
		return r;
	}
	for (uint64_t at = 0; ploop_disk_extent(disk, at, &extent); at = extent.offset + extent.length) {
		if (extent.mapped)
			view_add(view, &extent, most);
	}
	*ret = view;
	return 0;
}

void map_view_free(struct map_view *view)
{
	if (!view)
		return;
	free(view->levels);
	free(view);
}

/* 0-9, a-z, A-Z for the levels, then '+'. */
static char level_letter(int level)
{
	static const char letters[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

	if (level == MAP_NOWHERE)
		return '.';
	return level < (int)sizeof(letters) - 1 ? letters[level] : '+';
}

void map_draw_text(const struct map_view *view, FILE *out)
{
	for (unsigned cell = 0; cell < view->cells; cell++) {
		fputc(level_letter(view->level_at[cell]), out);
		if (cell % MAP_ROW == MAP_ROW - 1 || cell == view->cells - 1)
			fputc('\n', out);
	}
}
