/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* disk-build.c - draws and builds stacks of images. See disk.h. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/le.h"
#include "disk.h"
#include "io/sim-table.h"

#define IN_USE 0x746F6E59u

static uint32_t draw_cluster(struct prng *prng, bool odd)
{
	static const uint32_t common[] = { 64, 64, 64, 64, 128, 512, 2048 }, legacy[] = { 1, 7, 8, 32, 63, 504 };

	return odd ? legacy[prng_below(prng, 6)] * SECTOR : common[prng_below(prng, 7)] * SECTOR;
}

static uint64_t draw_size(struct prng *prng, uint32_t cluster)
{
	uint64_t most = cluster >= 1 << 20 ? 10 : cluster >= 1 << 18 ? 20 : 60, clusters = 2 + prng_below(prng, most);

	if (cluster <= 32768 && prng_one_in(prng, 8))
		clusters = 1000 + prng_below(prng, 400); /* an index of two pages */
	if (prng_one_in(prng, 4))
		return clusters * cluster - prng_below(prng, cluster / SECTOR) * SECTOR;
	return clusters * cluster;
}

/* Where the data area begins: behind the index, then rounded as the version demands or as other software did. */
static void draw_start(struct disk_level *level, uint32_t cluster, bool written, struct prng *prng)
{
	uint64_t index = round_up(64 + 4 * (uint64_t)level->clusters, written ? FORMAT_PAGE : SECTOR);

	level->start = round_up(index, cluster);
	if (prng_one_in(prng, 8))
		level->start += cluster;
	if (level->version == 1 && prng_one_in(prng, 2))
		level->start = index + prng_below(prng, 16) * SECTOR;
	level->first_sector = (uint32_t)(level->start / SECTOR);
	if (level->start == index && level->version == 1 && !written && prng_one_in(prng, 2))
		level->first_sector = 0;
}

void disk_draw(struct disk *disk, struct prng *prng)
{
	uint64_t version = 1 + prng_below(prng, 2);

	*disk = (struct disk){ .nlevels = 1 + (unsigned)prng_below(prng, DISK_BUILT), .odd = prng_one_in(prng, 12) };
	disk->cluster = draw_cluster(prng, disk->odd);
	disk->partial_limit = prng_one_in(prng, 2) ? 1 + (unsigned)prng_below(prng, 8) : 0;
	disk->size = draw_size(prng, disk->cluster);
	for (unsigned i = disk->nlevels; i-- > 0;) {
		struct disk_level *level = &disk->levels[i];
		uint64_t above = i + 1 < disk->nlevels ? disk->levels[i + 1].size : disk->size;

		snprintf(level->path, sizeof(level->path), "level%u", i);
		disk->serial++;
		level->version = (uint32_t)version;
		level->size =
			i + 1 < disk->nlevels && prng_one_in(prng, 3)
				? round_up(1 + prng_below(prng, above), prng_one_in(prng, 2) ? SECTOR : disk->cluster)
				: above;
		level->size = min_u64(level->size, above);
		level->clusters = (uint32_t)div_round_up(level->size, disk->cluster);
		level->raw = i == 0 && !disk->odd && prng_one_in(prng, 4);
		if (!level->raw)
			draw_start(level, disk->cluster, i + 1 == disk->nlevels && !disk->odd, prng);
	}
}

void disk_describe(const struct disk *disk, char *text, size_t size)
{
	int at = snprintf(text, size, "%u levels, v%u%s, cluster %u, size %llu%s", disk->nlevels,
			  disk->levels[0].version, disk->levels[0].raw ? " on raw" : "", disk->cluster,
			  (unsigned long long)disk->size, disk->odd ? ", odd" : "");

	for (unsigned i = 0; i < disk->nlevels && at > 0 && (size_t)at < size; i++)
		at += snprintf(text + at, size - (size_t)at, " [%u @%llu]", disk->levels[i].clusters,
			       (unsigned long long)disk->levels[i].start);
}

/* One level while it is built. */
struct build {
	struct disk *disk;
	struct disk_level *level;
	struct prng *prng;
	struct oracle *oracle;
	struct io_file *file;
	uint64_t id;
	uint8_t *buffer;  /* one cluster */
	unsigned density; /* of mapped clusters, out of 8 */
};

static void must(int r)
{
	assert(!r);
	(void)r;
}

/* Writes cluster v's data at byte `at`: sectors of this level, zeros, or nothing (a mapped hole). */
static void put_cluster(struct build *b, uint32_t v, uint64_t at)
{
	uint64_t count = b->disk->cluster / SECTOR, first = v * count, end = b->level->size / SECTOR;
	unsigned style = (unsigned)prng_below(b->prng, 4); /* 0: hole, 1: mixed, else full */

	memset(b->buffer, 0, b->disk->cluster);
	for (uint64_t s = 0; s < count && first + s < b->oracle->sectors; s++) {
		bool data = style && first + s < end && !(style == 1 && prng_one_in(b->prng, 2));

		if (data)
			oracle_fill(b->id, first + s, 1, b->buffer + s * SECTOR);
		oracle_preset(b->oracle, first + s, data ? b->id : 0);
	}
	if (style)
		must(io_pwrite(b->file, b->buffer,
			       b->level->raw ? min_u64(b->disk->cluster, b->level->size - first * SECTOR)
					     : b->disk->cluster,
			       at));
}

static void put_garbage(struct build *b, uint64_t at, uint64_t length)
{
	for (uint64_t i = 0; i < length; i += 8)
		memcpy(b->buffer + i, &(uint64_t){ prng_next(b->prng) }, min_u64(8, length - i));
	must(io_pwrite(b->file, b->buffer, length, at));
	b->level->littered = true;
}

static void put_header(const struct disk *disk, const struct disk_level *level, uint8_t *head, bool in_use, bool empty)
{
	memcpy(head, level->version == 1 ? "WithoutFreeSpace" : "WithouFreSpacExt", 16);
	le32_put(head + 16, 2);
	le32_put(head + 20, 16);
	le32_put(head + 24, (uint32_t)(level->size / SECTOR / 16));
	le32_put(head + 28, disk->cluster / SECTOR);
	le32_put(head + 32, level->clusters);
	le64_put(head + 36, level->size / SECTOR);
	le32_put(head + 44, in_use ? IN_USE : 0);
	le32_put(head + 48, level->first_sector);
	le32_put(head + 52, empty);
}

/* File clusters [0, n) of the data area in any order. */
static uint32_t *shuffled(struct prng *prng, uint32_t n)
{
	uint32_t *order = sim_alloc((n + 1) * sizeof(*order));

	for (uint32_t i = 0; i < n; i++) {
		uint32_t j = (uint32_t)prng_below(prng, i + 1);

		order[i] = order[j];
		order[j] = i;
	}
	return order;
}

/* What crashes and other software leave behind the last cluster. */
static void put_tail(struct build *b, uint64_t end, bool crashed)
{
	if (crashed && prng_one_in(b->prng, 2))
		put_garbage(b, end, 1 + prng_below(b->prng, b->disk->cluster));
	else if (prng_one_in(b->prng, 6))
		must(io_truncate(b->file, end + prng_below(b->prng, 4) * b->disk->cluster));
}

static void put_extension(struct build *b, uint8_t *head, uint64_t *end)
{
	le32_put(head + 44, 0x312E3276);
	le64_put(head + 56, *end / SECTOR);
	must(disk_put_extension(b->disk, b->file, *end, b->prng, end));
	b->level->extension = b->disk->bitmaps = true;
}

static void build_ploop1(struct build *b, bool top)
{
	const struct disk_level *level = b->level;
	uint32_t most = level->clusters + (uint32_t)prng_below(b->prng, 4), used = 0, highest = 0;
	uint32_t places = b->density == 8 ? most : most * (b->density + 1) / 8;
	uint32_t *order = shuffled(b->prng, places);
	uint8_t *index = sim_alloc(level->start);
	bool crashed = top && !b->disk->odd && prng_one_in(b->prng, 4);
	uint64_t end;

	for (uint32_t v = 0; v < level->clusters && used < places; v++) {
		uint64_t at = level->start + (uint64_t)order[used] * b->disk->cluster;

		if (prng_below(b->prng, 8) >= b->density)
			continue;
		highest = (uint32_t)max_u64(highest, order[used++] + 1);
		le32_put(index + 64 + 4 * (uint64_t)v,
			 (uint32_t)(at / (level->version == 1 ? SECTOR : b->disk->cluster)));
		put_cluster(b, v, at);
	}
	for (uint32_t i = used; i < places; i++) {
		if (order[i] < highest && prng_one_in(b->prng, 2))
			put_garbage(b, level->start + (uint64_t)order[i] * b->disk->cluster, b->disk->cluster);
	}
	end = level->start + (uint64_t)highest * b->disk->cluster;
	must(io_truncate(b->file, end));
	put_header(b->disk, level, index, crashed, !used);
	if (top && !b->disk->odd && !crashed && prng_one_in(b->prng, 4))
		put_extension(b, index, &end);
	must(io_pwrite(b->file, index, level->start, 0));
	if (top && !b->disk->odd)
		put_tail(b, end, crashed);
	free(index);
	free(order);
}

static void build_raw(struct build *b)
{
	must(io_truncate(b->file, b->level->size));
	for (uint32_t v = 0; v < b->level->clusters; v++)
		if (prng_below(b->prng, 8) < b->density)
			put_cluster(b, v, (uint64_t)v * b->disk->cluster);
}

void disk_build(struct disk *disk, struct sim *sim, struct prng *prng, struct oracle *oracle)
{
	uint8_t *buffer = sim_alloc(disk->cluster);

	for (unsigned i = 0; i < disk->nlevels; i++) {
		struct disk_level *level = &disk->levels[i];
		struct build b = { .disk = disk,
				   .level = level,
				   .prng = prng,
				   .oracle = oracle,
				   .buffer = buffer,
				   .id = oracle_new_id(oracle),
				   .density = (unsigned)prng_below(prng, 9) };

		must(io_open(sim_loop(sim), &io_sim, level->path, IO_RDWR | IO_CREATE, &b.file, NULL));
		if (level->clusters > 300)
			b.density = (unsigned)prng_below(prng, 2);
		if (level->raw)
			build_raw(&b);
		else
			build_ploop1(&b, i + 1 == disk->nlevels);
		must(io_sync(b.file));
		io_close(b.file);
		disk_settle(level, sim);
	}
	free(buffer);
}

int disk_new_top(struct disk *disk, struct sim *sim, struct prng *prng, struct delta *ret)
{
	const struct disk_level *below = &disk->levels[disk->nlevels - 1];
	struct disk_level *level = &disk->levels[disk->nlevels];
	struct io_file *file = NULL;
	uint8_t *index;
	int r;

	*level = (struct disk_level){ .version = below->version, .size = disk->size };
	level->clusters = (uint32_t)div_round_up(level->size, disk->cluster);
	snprintf(level->path, sizeof(level->path), "level%u", disk->serial++);
	draw_start(level, disk->cluster, true, prng);
	index = sim_alloc(level->start);
	put_header(disk, level, index, false, true);
	r = io_open(sim_loop(sim), &io_sim, level->path, IO_RDWR | IO_CREATE, &file, NULL);
	if (!r)
		r = io_pwrite(file, index, level->start, 0);
	if (!r)
		r = io_sync(file);
	free(index);
	*ret = (struct delta){ .file = file, .format = &format_ploop1 };
	return r ? r : disk_parse(disk, level, ret);
}

void disk_adopt_top(struct disk *disk)
{
	disk->levels[disk->nlevels - 1].settled = false;
	disk->nlevels++;
}
