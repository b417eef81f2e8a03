/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* disk-partial.c - the table of partial clusters that a crash left: what it names belongs to nobody else. */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/le.h"
#include "disk.h"
#include "format/partial.h"
#include "io/sim-table.h"

struct look {
	const struct disk *disk;
	const struct disk_level *level;
	struct io_file *file;
	const uint8_t *index;
	uint64_t places;
	uint8_t *seen;
};

/* NULL, or what is wrong with a place that begins at byte `at`. */
static const char *take(struct look *look, uint64_t at)
{
	uint64_t place = (at - look->level->start) / look->disk->cluster;

	if (at < look->level->start || (at - look->level->start) % look->disk->cluster || place >= look->places)
		return "a partial cluster, or its table, lies outside the file";
	return look->seen[place]++ ? "a partial cluster, or its table, has two uses" : NULL;
}

static uint64_t entry_at(const struct look *look, uint32_t entry)
{
	return (uint64_t)entry * (look->level->version == 1 ? SECTOR : look->disk->cluster);
}

static const char *take_records(struct look *look, const struct partial_record *records)
{
	const char *wrong = NULL;

	for (unsigned i = 0; i < PARTIAL_RECORDS && !wrong; i++) {
		if (!records[i].entry)
			continue;
		if (records[i].v >= look->level->clusters)
			wrong = "a record of a partial cluster beyond the disk";
		else if (!le32_get(look->index + 64 + 4 * (uint64_t)records[i].v))
			wrong = take(look, entry_at(look, records[i].entry));
	}
	return wrong;
}

static const char *take_pages(struct look *look, const struct partial_table *table)
{
	struct partial_record records[2][PARTIAL_RECORDS];
	uint8_t bytes[2 * FORMAT_PAGE];
	const char *wrong = NULL;

	for (uint32_t page = 0; page < table->pages && !wrong; page++) {
		uint64_t sequence[2] = { 0 };
		bool good[2];

		if (io_pread(look->file, bytes, sizeof(bytes), partial_page_offset(table, page, 0)))
			return "the table of partial clusters cannot be read";
		for (unsigned c = 0; c < 2; c++)
			good[c] = partial_page_get(bytes + (size_t)c * FORMAT_PAGE, &sequence[c], records[c]);
		if (!good[0] && !good[1])
			return "both copies of a page of the table of partial clusters are damaged";
		wrong = take_records(look, records[!good[0] || (good[1] && sequence[1] > sequence[0])]);
	}
	return wrong;
}

static const char *look_at(struct look *look, uint64_t extension, uint64_t size)
{
	struct geometry g = { .cluster = look->disk->cluster, .first = 1, .extension = extension };
	uint8_t *cluster = sim_alloc(g.cluster);
	struct partial_table table;
	const char *wrong = NULL;
	int r = 0;

	g.base = (int64_t)look->level->start - g.cluster;
	for (uint32_t v = 0; v < look->level->clusters; v++)
		if (le32_get(look->index + 64 + 4 * (uint64_t)v))
			take(look, entry_at(look, le32_get(look->index + 64 + 4 * (uint64_t)v)));
	/* That of another program may be half rewritten: the header names it only when it is not. */
	if (!io_pread(look->file, cluster, g.cluster, extension) && !extension_verify(cluster, g.cluster))
		r = partial_feature_find(cluster, &g, size, &table);
	if (r < 0)
		wrong = "the table of partial clusters is described wrongly";
	if (r == 1)
		wrong = take(look, extension);
	if (r == 1 && !wrong)
		wrong = take(look, table.offset);
	if (r == 1 && !wrong)
		wrong = take_pages(look, &table);
	free(cluster);
	return wrong;
}

const char *disk_check_table(const struct disk *disk, const struct disk_level *level, struct io_file *file,
			     const uint8_t *index, uint64_t size)
{
	uint64_t extension = le64_get(index + 56) * SECTOR;
	struct look look = { .disk = disk, .level = level, .file = file, .index = index };
	const char *wrong;

	if (!le32_get(index + 44) || extension < level->start || size < level->start)
		return NULL;
	look.places = (size - level->start) / disk->cluster;
	look.seen = sim_alloc(look.places + 1);
	wrong = look_at(&look, extension, size);
	free(look.seen);
	return wrong;
}
