/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* disk-check.c - opens the levels of a stack, and checks the structure of their files from bytes. See disk.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/le.h"
#include "disk.h"
#include "io/sim-table.h"

#include <ploop/ploop.h>

#define IN_USE 0x746F6E59u
#define CLOSED_V21 0x312E3276u

int disk_parse(struct disk *disk, const struct disk_level *level, struct delta *delta)
{
	struct ploop_error err = { 0 };
	uint8_t head[FORMAT_HEAD];
	uint64_t size = 0;
	int r = io_size(delta->file, &size);
	uint32_t cluster = level->raw ? disk->cluster : 0;

	if (!r)
		r = io_pread(delta->file, head, min_u64(size, sizeof(head)), 0);
	if (!r)
		r = delta->format->parse(head, min_u64(size, sizeof(head)), size, cluster, &delta->geometry, &err);
	if (r)
		snprintf(disk->text, sizeof(disk->text), "%s does not open: %.150s", level->path, err.text);
	return r;
}

static int open_level(struct disk *disk, struct sim *sim, unsigned i, unsigned flags, struct delta *delta)
{
	const struct disk_level *level = &disk->levels[i];
	int r;

	*delta = (struct delta){ .format = level->raw ? &format_raw : &format_ploop1 };
	r = io_open(sim_loop(sim), &io_sim, level->path, flags, &delta->file, NULL);
	if (r)
		snprintf(disk->text, sizeof(disk->text), "%s does not open: %s", level->path, strerror(-r));
	return r ? r : disk_parse(disk, level, delta);
}

void disk_settle(struct disk_level *level, struct sim *sim)
{
	level->settled = true;
	level->changes = sim_changes(sim, level->path);
	level->hash = sim_hash(sim, level->path);
}

/* Whatever is in the file of a level below the top becomes durable; a mark that a crash left is cleared. */
static int settle_level(struct disk *disk, struct sim *sim, unsigned i, const struct delta *delta)
{
	struct disk_level *level = &disk->levels[i];
	struct io_file *file = NULL;
	uint8_t closed[4] = { 0 };
	int r;

	if (level->settled)
		return 0;
	r = io_open(sim_loop(sim), &io_sim, level->path, IO_RDWR, &file, NULL);
	if (!r && !level->raw && delta->geometry.state == FORMAT_IN_USE)
		r = io_pwrite(file, closed, sizeof(closed), 44);
	if (!r)
		r = io_sync(file);
	io_close(file);
	if (!r)
		disk_settle(level, sim);
	else
		snprintf(disk->text, sizeof(disk->text), "%s cannot be settled", level->path);
	return r;
}

int disk_open(struct disk *disk, struct sim *sim, bool read_only, struct delta levels[DISK_LEVELS])
{
	int r = 0;

	memset(levels, 0, DISK_LEVELS * sizeof(*levels));
	for (unsigned i = 0; i < disk->nlevels && !r; i++) {
		bool top = i + 1 == disk->nlevels;

		r = open_level(disk, sim, i, top && !read_only ? IO_RDWR : IO_RDONLY, &levels[i]);
		if (!r && !read_only)
			r = disk_settle_extension(disk, &levels[i]);
		if (!r && !top && !read_only && !levels[i].geometry.partial)
			r = settle_level(disk, sim, i, &levels[i]);
	}
	if (r)
		disk_close(disk, levels);
	return r;
}

void disk_close(struct disk *disk, struct delta levels[DISK_LEVELS])
{
	for (unsigned i = 0; i < disk->nlevels; i++) {
		io_close(levels[i].file);
		levels[i].file = NULL;
	}
}

#define wrong(disk, ...) (snprintf((disk)->text, sizeof((disk)->text), __VA_ARGS__), false)

/* Each entry lies inside the file, behind the index, on a place of its own. *ret_end: where the last one ends. */
static bool check_index(struct disk *disk, const struct disk_level *level, const uint8_t *index, uint64_t size,
			const struct disk_places *extension, uint64_t *ret_end)
{
	uint64_t places = (max_u64(size, level->start) - level->start) / disk->cluster;
	uint8_t *seen = sim_alloc(places + 1);
	bool good = true;

	*ret_end = level->start;
	for (unsigned i = 0; i < extension->n && good; i++) {
		*ret_end = max_u64(*ret_end, extension->at[i] + disk->cluster);
		if (extension->at[i] + disk->cluster > size)
			good = wrong(disk, "%s: its extension lies beyond the end", level->path);
		else if (seen[(extension->at[i] - level->start) / disk->cluster]++)
			good = wrong(disk, "%s: its extension is in one place twice", level->path);
	}
	for (uint32_t v = 0; v < level->clusters && good; v++) {
		uint32_t entry = le32_get(index + 64 + 4 * (uint64_t)v);
		uint64_t at = (uint64_t)entry * (level->version == 1 ? SECTOR : disk->cluster);

		if (!entry)
			continue;
		if (at < level->start || (at - level->start) % disk->cluster)
			good = wrong(disk, "%s: entry %u of cluster %u points before or between clusters", level->path,
				     entry, v);
		else if ((at - level->start) / disk->cluster >= places)
			good = wrong(disk, "%s: entry %u of cluster %u points beyond the end %llu", level->path, entry,
				     v, (unsigned long long)size);
		else if (seen[(at - level->start) / disk->cluster]++)
			good = wrong(disk, "%s: entry %u of cluster %u is there twice", level->path, entry, v);
		*ret_end = max_u64(*ret_end, at + disk->cluster);
	}
	free(seen);
	return good;
}

static bool check_header(struct disk *disk, const struct disk_level *level, const uint8_t *head,
			 enum disk_expect expect)
{
	uint32_t in_use = le32_get(head + 44);
	uint64_t end = 64 + 4 * (uint64_t)level->clusters;

	if (memcmp(head, level->version == 1 ? "WithoutFreeSpace" : "WithouFreSpacExt", 16) ||
	    le32_get(head + 16) != 2 || le32_get(head + 28) != disk->cluster / SECTOR ||
	    le32_get(head + 32) != level->clusters || le64_get(head + 36) != level->size / SECTOR ||
	    le32_get(head + 48) != level->first_sector)
		return wrong(disk, "%s: the header changed", level->path);
	if (in_use && in_use != IN_USE && in_use != CLOSED_V21)
		return wrong(disk, "%s: in-use flag %#x", level->path, in_use);
	if (expect == DISK_IN_USE && in_use != IN_USE)
		return wrong(disk, "%s: not marked in use while it was open", level->path);
	if (expect == DISK_CLEAN && in_use == IN_USE)
		return wrong(disk, "%s: marked in use though it was closed", level->path);
	for (; end < level->start; end++)
		if (head[end])
			return wrong(disk, "%s: byte %llu behind the index is not zero", level->path,
				     (unsigned long long)end);
	return true;
}

static bool check_level(struct disk *disk, struct sim *sim, const struct disk_level *level, enum disk_expect expect)
{
	uint8_t *index = sim_alloc(level->start);
	struct io_file *file = NULL;
	struct disk_places extension;
	uint64_t size, end;
	const char *why = NULL;
	bool good;

	if (io_open(sim_loop(sim), &io_sim, level->path, IO_RDONLY, &file, NULL) || io_size(file, &size) ||
	    io_pread(file, index, level->start, 0))
		good = wrong(disk, "%s cannot be read", level->path);
	else
		good = check_header(disk, level, index, expect);
	if (good)
		why = disk_check_extension(disk, level, file, index, &extension);
	if (good && why)
		good = wrong(disk, "%s: %s", level->path, why);
	if (good)
		good = check_index(disk, level, index, size, &extension, &end);
	if (good && (why = disk_check_table(disk, level, file, index, size)))
		good = wrong(disk, "%s: %s", level->path, why);
	if (good && size < level->start)
		good = wrong(disk, "%s: %llu bytes are too short", level->path, (unsigned long long)size);
	if (good && expect == DISK_CLEAN && size != end)
		good = wrong(disk, "%s: closed with length %llu, used up to %llu", level->path,
			     (unsigned long long)size, (unsigned long long)end);
	io_close(file);
	free(index);
	return good;
}

bool disk_check(struct disk *disk, struct sim *sim, enum disk_expect expect)
{
	for (unsigned i = 0; i < disk->nlevels; i++) {
		const struct disk_level *level = &disk->levels[i];
		bool top = i + 1 == disk->nlevels;

		if (!top && level->settled && sim_changes(sim, level->path) != level->changes)
			return wrong(disk, "%s was written to", level->path);
		if (level->raw || disk->odd || (!top && level->settled))
			continue;
		if (!check_level(disk, sim, level, top ? expect : DISK_ANY))
			return false;
	}
	return true;
}

bool disk_check_hashes(struct disk *disk, struct sim *sim)
{
	for (unsigned i = 0; i + 1 < disk->nlevels; i++)
		if (disk->levels[i].settled && sim_hash(sim, disk->levels[i].path) != disk->levels[i].hash)
			return wrong(disk, "%s has other contents than it had", disk->levels[i].path);
	return true;
}
