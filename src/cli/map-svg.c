/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * map-svg.c - a disk and its files as bars. The bar of the disk is a rainbow; in the bar of a file each place has the colour of
 * the part of the disk that lies there. A file in order is a rainbow too, a scattered one is confetti.
 */
#include <errno.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "cli/map-view.h"
#include "cli/size.h"

#define MARGIN 20
#define TITLE 22 /* pixels for a line of text */
#define BAR 28
#define STRIPE 6 /* where the disk is seen through this file */
#define GAP 18
#define HUES 72     /* steps of the rainbow */
#define HUE_END 300 /* violet: red would come twice */

#define COLOUR_NONE (-1)
#define COLOUR_HEADER (-2)
#define COLOUR_SEEN (-3)

static void svg_text(FILE *out, unsigned y, const char *text)
{
	fprintf(out, "<text x=\"%u\" y=\"%u\">", MARGIN, y);
	for (; *text; text++) {
		if (*text == '<')
			fputs("&lt;", out);
		else if (*text == '&')
			fputs("&amp;", out);
		else if ((unsigned char)*text >= ' ')
			fputc(*text, out);
	}
	fputs("</text>\n", out);
}

static int hue_of(const struct map_view *view, int disk_cell)
{
	return disk_cell * HUES / (int)view->cells * HUE_END / HUES;
}

static void svg_rect(FILE *out, unsigned from, unsigned to, unsigned cells, unsigned y, unsigned height, int colour)
{
	double scale = (double)MAP_CELLS / cells;

	fprintf(out, "<rect x=\"%.1f\" y=\"%u\" width=\"%.1f\" height=\"%u\" fill=\"", MARGIN + from * scale, y,
		(to - from) * scale, height);
	if (colour == COLOUR_HEADER)
		fputs("#333", out);
	else if (colour == COLOUR_SEEN)
		fputs("#888", out);
	else
		fprintf(out, "hsl(%d,75%%,55%%)", colour);
	fputs("\"/>\n", out);
}

/* A bar: cells of the same colour next to each other are one rectangle. */
static void svg_bar(FILE *out, const int *colours, unsigned cells, unsigned y, unsigned height)
{
	unsigned from = 0;

	fprintf(out, "<rect x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\" fill=\"#eee\"/>\n", MARGIN, y, MAP_CELLS,
		height);
	for (unsigned cell = 1; cell <= cells; cell++) {
		if (cell < cells && colours[cell] == colours[from])
			continue;
		if (colours[from] != COLOUR_NONE)
			svg_rect(out, from, cell, cells, y, height, colours[from]);
		from = cell;
	}
}

static unsigned svg_disk(const struct map_view *view, FILE *out, unsigned y)
{
	char size[SIZE_TEXT], mapped[SIZE_TEXT], text[160];
	int colours[MAP_CELLS];

	for (unsigned cell = 0; cell < view->cells; cell++)
		colours[cell] = view->level_at[cell] == MAP_NOWHERE ? COLOUR_NONE : hue_of(view, (int)cell);
	snprintf(text, sizeof(text), "disk: %s, %s mapped, in %llu pieces", size_format(view->size, size),
		 size_format(view->mapped, mapped), (unsigned long long)view->pieces);
	svg_text(out, y + TITLE - 6, text);
	svg_bar(out, colours, view->cells, y + TITLE, BAR);
	return y + TITLE + BAR + GAP;
}

static unsigned svg_level(const struct map_view *view, unsigned level, FILE *out, unsigned y)
{
	const struct map_level_view *file = &view->levels[level];
	unsigned header = (unsigned)((long double)file->level.data_start * MAP_CELLS / (file->level.length + 1));
	char length[SIZE_TEXT], mapped[SIZE_TEXT], text[PLOOP_ERROR_TEXT];
	int colours[MAP_CELLS];

	snprintf(text, sizeof(text), "level %u: %s of %s, in %llu pieces: %s", level, size_format(file->mapped, mapped),
		 size_format(file->level.length, length), (unsigned long long)file->pieces, file->level.path);
	svg_text(out, y + TITLE - 6, text);
	for (unsigned cell = 0; cell < view->cells; cell++)
		colours[cell] = file->seen[cell] ? COLOUR_SEEN : COLOUR_NONE;
	svg_bar(out, colours, view->cells, y + TITLE, STRIPE);
	for (unsigned cell = 0; cell < MAP_CELLS; cell++) {
		if (file->disk_at[cell] != MAP_NOWHERE)
			colours[cell] = hue_of(view, file->disk_at[cell]);
		else
			colours[cell] = cell < header ? COLOUR_HEADER : COLOUR_NONE;
	}
	svg_bar(out, colours, MAP_CELLS, y + TITLE + STRIPE + 2, BAR);
	return y + TITLE + STRIPE + 2 + BAR + GAP;
}

int map_draw_svg(const struct map_view *view, const char *path, struct ploop_error *err)
{
	unsigned height = 2 * MARGIN + (view->nlevels + 1) * (TITLE + STRIPE + 2 + BAR + GAP), y = MARGIN;
	_fclose_
	FILE *out = fopen(path, "we");

	if (!out)
		return error_sys(err, -errno, PLOOP_EXIT_CREAT, "%s", path);
	fprintf(out,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%u\" height=\"%u\" font-family=\"sans-serif\" "
		"font-size=\"13\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
		MAP_CELLS + 2 * MARGIN, height);
	y = svg_disk(view, out, y);
	for (unsigned level = view->nlevels; level-- > 0;)
		y = svg_level(view, level, out, y);
	fputs("</svg>\n", out);
	if (fflush(out) || ferror(out))
		return error_sys(err, -errno, PLOOP_EXIT_WRITE, "%s", path);
	return 0;
}
