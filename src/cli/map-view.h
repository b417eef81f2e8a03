/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* map-view.h - a disk seen from far enough that it fits a line: numbers for each file, and MAP_CELLS cells of disk and file. */
#ifndef CLI_MAP_VIEW_H
#define CLI_MAP_VIEW_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <ploop/ploop.h>

#define MAP_CELLS 1024
#define MAP_NOWHERE (-1)

struct map_level_view {
	struct ploop_level level;
	uint64_t mapped;            /* bytes of the disk that come from this file */
	uint64_t pieces;            /* extents */
	bool seen[MAP_CELLS];       /* cell of the disk: something there comes from this file */
	int16_t disk_at[MAP_CELLS]; /* cell of the file: the cell of the disk whose data lies there, or MAP_NOWHERE */
};

struct map_view {
	uint64_t size;
	uint32_t cluster;
	unsigned cells; /* of the disk: MAP_CELLS, or as many as there are clusters */
	uint64_t mapped, pieces;
	unsigned nlevels;
	struct map_level_view *levels;
	int16_t level_at[MAP_CELLS]; /* the level that has most of the cell, or MAP_NOWHERE */
};

int map_view_new(struct ploop_disk *disk, struct map_view **ret, struct ploop_error *err);
void map_view_free(struct map_view *view);

/* A picture of characters, 64 cells a line. */
void map_draw_text(const struct map_view *view, FILE *out);

/* A picture in SVG: the disk's parts have the colours of the rainbow, and so have the places in the files where they lie. */
int map_draw_svg(const struct map_view *view, const char *path, struct ploop_error *err);

#endif
